"""An evaluation's details: files that agree with each other, whatever the batch size."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.cli.details import Details
from flaxcnn.data import FolderSource, digits, digits_splits
from flaxcnn.train.writers import describe
from tests.cli.conftest import Command


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_details_are_those_of_the_examples(command: Command, run_folder: Path, tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder, batch_size in zip(folders, (256, 50), strict=True):
        words = ("--workdir", run_folder, "--json", "--details", folder, "--data.eval_batch_size", batch_size)
        ended = command("evaluate", *words)
        assert ended.status == 0, ended.err
    result, (folder, other) = json.loads(ended.out), folders
    summary = json.loads((folder / "summary.json").read_text())
    assert {name: summary[name] for name in result} == pytest.approx(result, rel=1e-5)
    predictions = table(folder / "predictions.csv")
    for row, same in zip(predictions, table(other / "predictions.csv"), strict=True):
        assert (row["example"], row["predicted"]) == (same["example"], same["predicted"])
        assert float(row["probability"]) == pytest.approx(float(same["probability"]), rel=1e-4)

    source = digits("val")
    assert [row["example"] for row in predictions] == [source.key(i) for i in range(len(source))]
    assert [row["label"] for row in predictions] == [str(label) for label in source.labels]
    right = [row["label"] == row["predicted"] for row in predictions]
    assert np.mean(right) == summary["top1"] < 1
    confusion = {row.pop("label"): row for row in table(folder / "confusion.csv")}
    assert sum(int(confusion[str(i)][str(i)]) for i in range(10)) == sum(right)
    for row in table(folder / "classes.csv"):
        mine = [r for r, p in zip(right, predictions, strict=True) if p["label"] == row["class"]]
        assert int(row["support"]) == len(mine)
        assert float(row["recall"]) == pytest.approx(np.mean(mine), abs=1e-5)
    most = table(folder / "confused_pairs.csv")[0]
    assert int(confusion[most["label"]][most["predicted"]]) == int(most["images"]) > 0
    bins = table(folder / "calibration.csv")
    assert sum(int(row["predictions"]) for row in bins) == len(source)
    loss = -np.log([float(row["label_probability"]) for row in predictions])
    assert loss.mean() == pytest.approx(summary["loss"], rel=1e-4)
    for name in ("confusion", "reliability", "mistakes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width > 300


def test_all_images_of_another_folder(command: Command, run_folder: Path, tmp_path: Path) -> None:
    source = digits_splits()["all"]()
    for i in range(100):
        (tmp_path / "new" / str(source.labels[i])).mkdir(parents=True, exist_ok=True)
        source[i]["image"].save(tmp_path / "new" / str(source.labels[i]) / f"{i}.png")
    words = ["evaluate", "--workdir", run_folder, "--data.name", "image_folder", "--data.path", tmp_path / "new"]
    share = command(*words)
    assert re.search(r"\((19|2\d) examples\)", share.out)
    assert "the share that training would hold out; for all add --data.val_split all\n" in share.err
    whole = command(*words, "--data.val_split", "all")
    assert "(100 examples)" in whole.out and "for all" not in whole.err
    assert "some may be among those it saw" in whole.err


def test_images_of_any_number_of_classes(tmp_path: Path) -> None:
    files = ("a.png", "b.png", "c.png")
    for shade, file in enumerate(files):
        Image.new("RGB", (300, 200), (80 * shade,) * 3).save(tmp_path / file)
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)
    source = FolderSource(tmp_path, files, labels, ("cat", "dog", "cup"))
    logits = np.array([[2.0, -1.0, -3.0], [-1.0, -2.0, -1.0], [-4.0, 1.0, -1.0]])
    Details(str(tmp_path)).write({"loss": 0.5}, source, logits, 1 / (1 + np.exp(-logits)), labels)
    predictions = table(tmp_path / "predictions.csv")
    assert [row["labels"] for row in predictions] == ["cat|cup", "", "dog"]
    assert float(predictions[0]["cat"]) == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-5)
    classes = {row["class"]: row for row in table(tmp_path / "classes.csv")}
    assert [float(classes[name]["average_precision"]) for name in source.class_names] == pytest.approx(
        [1, 1, 1 / 3], abs=1e-5
    )
    assert [float(classes[name]["recall"]) for name in source.class_names] == [1, 1, 0]
    assert sum(int(row["predictions"]) for row in table(tmp_path / "calibration.csv")) == 9
    assert (tmp_path / "mistakes.png").exists()
    assert not (tmp_path / "confusion.csv").exists()


def test_a_gallery_of_no_mistakes_is_none(tmp_path: Path) -> None:
    source = digits("val").select(range(2))
    names = len(source.class_names)
    (tmp_path / "mistakes.png").write_bytes(b"of an earlier evaluation")
    probabilities = np.eye(names)[source.labels]
    Details(str(tmp_path)).write({}, source, probabilities, probabilities, source.labels)
    assert not (tmp_path / "mistakes.png").exists()
    assert json.loads((tmp_path / "summary.json").read_text()) == {"ece": 0.0}


def test_a_folder_that_cannot_be_made(refused, run_folder: Path) -> None:
    line = refused("evaluate", "--workdir", run_folder, "--details", run_folder / "config.json" / "x")
    assert "--details: cannot write" in line


def test_five_guesses_at_five_classes_are_not_told() -> None:
    record = {"top1": 0.5, "top5": 1.0, "loss": 0.25, "average_top1": 0.6, "average_top5": 1.0, "average_loss": 0.2}
    assert "top-5" in describe(record, num_classes=6)
    assert describe(record, num_classes=5) == "top-1 50.00%  loss 0.2500; average: top-1 60.00%  loss 0.2000"
