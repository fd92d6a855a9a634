"""What prediction takes, and what it gives."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flaxcnn import create_model, load_weights, save_weights
from flaxcnn.data import digits
from flaxcnn.errors import UserError
from flaxcnn.inference.predict import find_images
from flaxcnn.models import abstract_variables
from flaxcnn.visual.annotate import annotate
from tests.cli.conftest import Command


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two digits of one name, and a broken file."""
    source, folder = digits("val"), tmp_path / "pictures"
    for i, name in enumerate(("a/digit.png", "b/digit.png")):
        (folder / name).parent.mkdir(parents=True)
        source[100 * i]["image"].save(folder / name)
    (folder / "c.png").write_bytes(b"no image")
    return folder


def test_a_table_of_comma_separated_values(command: Command, run_folder: Path, pictures: Path) -> None:
    as_json = command("predict", "--workdir", run_folder, "--json", "--top", 3, pictures)
    result = command("predict", "--workdir", run_folder, "--csv", "--top", 3, pictures)
    assert result.status == as_json.status == 1
    assert str(pictures / "c.png") in result.err
    rows = list(csv.DictReader(io.StringIO(result.out)))
    expected = [json.loads(line) for line in as_json.out.splitlines()]
    assert [row["file"] for row in rows] == [line["file"] for line in expected]
    for row, line in zip(rows, expected, strict=True):
        for i, prediction in enumerate(line["predictions"], 1):
            assert row[f"label_{i}"] == prediction["label"]
            assert float(row[f"probability_{i}"]) == pytest.approx(prediction["probability"], rel=1e-5)


def test_pictures_with_their_labels(command: Command, run_folder: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["--workdir", run_folder, pictures, "--save-annotated", tmp_path / "out"]
    assert command("predict", *words).status == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["digit-1.jpg", "digit.jpg"]
    with Image.open(tmp_path / "out" / "digit.jpg") as picture:
        assert picture.width == 256
        assert picture.height > 256
    again = command("predict", *words)
    assert (again.status, again.out) == (2, "")
    assert "out is not empty; name a new folder" in again.err


def test_a_strip_of_labels_leaves_the_picture_as_it_is() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    picture = np.asarray(annotate(image, [("cat", 0.75), ("dog", 0.25)]))
    np.testing.assert_array_equal(picture[:300], np.asarray(image))
    strip = picture[300:]
    bars = [(strip[len(strip) * i // 4, :, 0] < 255).sum() for i in (0, 2)]
    assert bars == [301, 101]  # three quarters and one of 400 pixels
    assert (strip < 100).any()  # words


def test_an_image_on_standard_input(run_folder: Path, pictures: Path, command: Command) -> None:
    file = pictures / "a" / "digit.png"
    words = [sys.executable, "-m", "flaxcnn", "predict", "--workdir", str(run_folder), "--json", "-", "-", "-"]
    piped = subprocess.run(words, input=file.read_bytes(), capture_output=True, check=False)
    assert piped.returncode == 0, piped.stderr
    expected = json.loads(command("predict", "--workdir", run_folder, "--json", file).out)
    lines = [json.loads(line) for line in piped.stdout.splitlines()]
    assert [line["file"] for line in lines] == ["-"] * 3  # named thrice, it is read once
    for line in lines:
        assert [p["label"] for p in line["predictions"]] == [p["label"] for p in expected["predictions"]]
        assert line["predictions"][0]["probability"] == pytest.approx(
            expected["predictions"][0]["probability"], abs=1e-5
        )


def test_weights_in_a_file(command: Command, config_file: Path, pictures: Path, tmp_path: Path) -> None:
    """A run's, which tell their number of classes and not their names; LeNet has no published preprocessing."""
    words = ["--config", config_file, "--data.image_size", 32, "--train.steps", 5, "--workdir", tmp_path / "run"]
    assert command("train", *words).status == 0
    model = create_model("lenet", num_classes=10)
    save_weights(model, load_weights(model, tmp_path / "run"), tmp_path / "w.pth")
    file = pictures / "a" / "digit.png"
    expected = json.loads(command("predict", "--workdir", tmp_path / "run", "--json", file).out)
    result = command("predict", "--model", "lenet", "--weights", tmp_path / "w.pth", "--json", file)
    found = json.loads(result.out)
    assert [p["label"] for p in found["predictions"]] == [f"class {p['label']}" for p in expected["predictions"]]
    for ours, theirs in zip(found["predictions"], expected["predictions"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_an_empty_name_is_not_the_folder_one_stands_in(pictures: Path) -> None:
    with pytest.raises(UserError, match="the name of an image is empty"):
        find_images([str(pictures), ""])


def test_weights_for_grey_images(command: Command, pictures: Path, tmp_path: Path) -> None:
    model = create_model("lenet", num_classes=3)
    for channels in (1, 4):
        variables = jax.tree.map(lambda a: np.full(a.shape, 0.01), abstract_variables(model, channels))
        save_weights(model, variables, tmp_path / f"{channels}.pth", channels=channels)
    file = pictures / "a" / "digit.png"
    result = command("predict", "--model", "lenet", "--weights", tmp_path / "1.pth", "--json", file)
    assert len(json.loads(result.out)["predictions"]) == 3
    result = command("predict", "--model", "lenet", "--weights", tmp_path / "4.pth", file)
    assert result.status == 2
    assert "4.pth is for images of 4 channels; files are read as 3, or 1 (grey)" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of the arguments --workdir --model is required"),
        (["--model", "lenet"], "there are no published weights of 'lenet'"),
        (["--model", "lennet", "--weights", __file__], "--model: unknown model 'lennet'; did you mean lenet or "),
        (["--model", "lenet", "--weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--workdir", "x", "--model", "lenet"], "--model: not allowed with argument --workdir"),
        (["--workdir", "x", "--weights", "w.pth"], "--weights needs --model NAME"),
        (["--model", "lenet", "--json", "--csv"], "--csv: not allowed with argument --json"),
    ],
)
def test_what_cannot_be_predicted_with(command: Command, pictures: Path, words: list[str], message: str) -> None:
    result = command("predict", pictures, *words)
    assert result.status == 2
    assert result.out == ""
    assert message in result.err
    assert len(result.err.splitlines()) == 1
