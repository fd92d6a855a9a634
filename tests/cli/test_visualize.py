"""Pictures of what a network looks at, by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from flaxcnn.data import digits
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, a folder a class."""
    source, folder = digits("val"), tmp_path_factory.mktemp("pictures")
    for i in range(4):
        path = folder / str(source.labels[i]) / "digit.png"
        path.parent.mkdir(exist_ok=True)
        source[i]["image"].save(path)
    return folder


OF_EACH_IMAGE = {"grad_cam", "grad_cam_plus_plus", "saliency", "integrated_gradients", "occlusion", "feature_maps"}
OF_ALL = {"filters", "weights", "activations", "dead_units", "embedding"}
QUICK = {"grad_cam", "feature_maps", "filters", "dead_units", "embedding"}
EACH = [
    pytest.param(what, marks=[] if what in QUICK else [pytest.mark.slow]) for what in sorted(OF_EACH_IMAGE | OF_ALL)
]


@pytest.mark.parametrize("what", EACH)
def test_pictures(command: Command, run_folder: Path, pictures: Path, tmp_path: Path, what: str) -> None:
    result = command("visualize", what, "--workdir", run_folder, "--output", tmp_path, "--device", "cpu", pictures)
    assert result.status == 0, result.err
    names = {path.name for path in tmp_path.iterdir()}
    images = len(list(pictures.rglob("*.png")))
    if what in OF_EACH_IMAGE:
        assert names == {f"digit{f'-{i}' if i else ''}_{what}.png" for i in range(images)}
    else:
        assert names == {f"{what}.png"}
    assert set(result.out.split()) == {str(tmp_path / name) for name in names}
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grad_camp", "x.png"], "argument WHAT: invalid choice: 'grad_camp'"),
        (["grad_cam"], "grad_cam needs at least one IMAGE"),
        (["grad_cam", "nowhere.png"], "there is no image nowhere.png"),
        (["grad_cam", "--layer", "conv3", "IMAGES"], "--layer: no map is called 'conv3'; did you mean conv"),
        (["saliency", "--class", "eleven", "IMAGES"], "--class: there is no class 'eleven'"),
        (["saliency", "--weights", "w.pth", "IMAGES"], "--weights needs --model NAME"),
    ],
)
def test_what_cannot_be_shown(
    refused: Callable[..., str], run_folder: Path, pictures: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    words = [str(pictures) if word == "IMAGES" else word for word in words]
    assert message in refused("visualize", *words, "--workdir", run_folder, "--output", tmp_path)
