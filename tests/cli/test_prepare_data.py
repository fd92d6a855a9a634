"""prepare_data: what it finds in a folder, what it writes, and mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import folder_splits, tfds_splits
from tests.cli.conftest import Command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in ("ape", "bee"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (10 + i, 20, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return root


def test_a_clean_folder(command: Command, folder: Path) -> None:
    result = command("prepare_data", "check", folder)
    assert result.status == 0 and result.err == ""
    lines = result.out.splitlines()
    assert [line.split() for line in lines[:3]] == [["class", "train", "test"], ["ape", "4", "2"], ["bee", "4", "2"]]
    assert lines[3].split() == ["images", "8", "4"]
    assert lines[4:6] == ["width: 20 to 20 pixels, median 20", "height: 10 to 13 pixels, median 11"]
    assert [line.rsplit(": ")[1] for line in lines[6:]] == ["0"] * 4


def test_images_that_are_passed_over_are_named(command: Command, folder: Path) -> None:
    for place in ("stray.png", "train/stray.png", "else/ape/x.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "train/ape/0.png", folder / place)
    result = command("prepare_data", "check", folder)
    assert result.status == 0
    names = "\n".join(f"  {folder / place}" for place in ("else/ape/x.png", "stray.png", "train/stray.png"))
    assert f"images in no class folder of these splits: 3\n{names}" in result.out


def test_images_of_several_labels_and_of_none_are_counted(command: Command, folder: Path) -> None:
    rows = ["path,labels,split"]
    rows += [f"train/ape/{i}.png,{label},train" for i, label in enumerate(("a;b", "", "b", "a"))]
    rows += ["test/bee/0.png,,test", "test/bee/1.png,a,test"]
    (folder / "m.csv").write_text("\n".join(rows))
    result = command("prepare_data", "check", folder / "m.csv")
    table = [line.split() for line in result.out.splitlines()[:5]]
    assert table[1:] == [["a", "1", "2"], ["b", "0", "2"], ["images", "2", "4"], ["no", "label", "1", "1"]]


def test_a_folder_below_home(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert command("prepare_data", "check", "~/data").out == command("prepare_data", "check", folder).out
    assert command("prepare_data", "split", "~/data/train", "~/divided", "--val_fraction", 0.5).status == 0
    assert (folder.parent / "divided" / "val" / "ape").is_dir()


def test_what_is_wrong_is_named(command: Command, folder: Path) -> None:
    shutil.copy(folder / "train/ape/0.png", folder / "train/ape/again.png")
    shutil.copy(folder / "train/ape/1.png", folder / "train/bee/other.png")
    with Image.open(folder / "train/bee/2.png") as image:
        image.save(folder / "test/bee/leaked.bmp")
    (folder / "test/ape/bad.jpg").write_text("no image")
    result = command("prepare_data", "check", folder, "--json")
    assert result.status == 1
    report = json.loads(result.out)
    names = {k: [[Path(n).name for n in group] for group in report[k]] for k in ("duplicates", "leaked")}
    assert names["leaked"] == [["2.png", "leaked.bmp"]]
    assert names["duplicates"] == [["0.png", "again.png"], ["1.png", "other.png"]]
    assert [[Path(n).name for n in group] for group in report["contradictions"]] == [["1.png", "other.png"]]
    assert report["broken"] == [f"{folder / 'test/ape/bad.jpg'}: not an image that Pillow can read"]
    assert report["counts"]["train"] == {"ape": 5, "bee": 5}
    text = command("prepare_data", "check", folder)
    assert text.status == 1 and "of the same pixels in two splits (leaked): 1\n" in text.out


def test_files_that_are_no_images_are_told(command: Command, folder: Path) -> None:
    for name in ("train/ape/a.heic", "train/bee/b.heic", "test/notes.txt", "list"):
        (folder / name).touch()
    result = command("prepare_data", "check", folder)
    assert result.status == 0
    assert result.out.splitlines()[-1] == "no images by their ending: 4 (.heic 2, .txt 1, without an ending 1)"
    report = json.loads(command("prepare_data", "check", folder, "--json").out)
    assert report["other_files"] == {".heic": 2, ".txt": 1, "": 1}


def test_one_folder_is_checked_as_training_divides_it(command: Command, folder: Path) -> None:
    result = command("prepare_data", "check", folder / "train", "--val_fraction", 0.5)
    assert result.out.splitlines()[1].split() == ["ape", "2", "2"]


def test_classes_of_one_image_are_named_and_the_rest_is_looked_at(command: Command, folder: Path) -> None:
    for name, image in (("cat", "0.png"), ("dog", "1.png")):
        (folder / "train" / name).mkdir()
        (folder / "train/bee" / image).rename(folder / "train" / name / image)
    (folder / "train/ape/0.png").write_bytes(b"")
    result = command("prepare_data", "check", folder / "train")
    lines = result.out.splitlines()
    assert result.status == 1 and lines[0].split() == ["class", "all"]
    at = lines.index("alone in its class, so that no share can be held out for val: 2")
    assert lines[at + 1 : at + 3] == ["  cat", "  dog"] and "broken: 1" in lines


def test_arrayrecord(command: Command, folder: Path, tmp_path: Path) -> None:
    result = command("prepare_data", "arrayrecord", folder, "--out", tmp_path / "out", "--name", "insects")
    assert result.status == 0
    assert f"wrote {tmp_path}/out/insects/1.0.0: 8 train, 4 test" in result.out
    assert f"--data.name tfds --data.builder insects --data.path {tmp_path}/out" in result.out
    prepared = tfds_splits("insects", data_dir=tmp_path / "out")
    for split, make in folder_splits(folder).items():
        np.testing.assert_array_equal(prepared[split]().labels, make().labels)
    unsplit = command("prepare_data", "arrayrecord", folder / "train", "--out", tmp_path / "out", "--name", "all")
    assert f"wrote {tmp_path}/out/all/1.0.0: 8 train\n" in unsplit.out


def test_mistakes(refused: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    assert "say what to do: check or split or arrayrecord" in refused("prepare_data")
    assert "no action 'chek'; did you mean check?" in refused("prepare_data", "chek", folder)
    assert "PATH" in refused("prepare_data", "check")
    assert "none: there is no such folder or manifest" in refused("prepare_data", "check", tmp_path / "none")
    for action in (["check", folder / "train"], ["split", folder / "train", tmp_path / "out"]):
        line = refused("prepare_data", *action, "--val_fraction", 2)
        assert "--val_fraction must be above 0 and below 1, not 2" in line
    assert "--val_fraction: must be a number, not 'x'" in refused(
        "prepare_data", "check", folder, "--val_fraction", "x"
    )
    (folder / "train/ape/link.png").symlink_to(folder / "gone.png")
    line = refused("prepare_data", "split", folder / "train", tmp_path / "out")
    assert "ape/link.png: No such file or directory" in line and not (tmp_path / "out").exists()
    (folder / "train/ape/link.png").unlink()
    out = ("arrayrecord", folder, "--out", tmp_path / "out", "--name")
    assert "'In sects' is no name for a data set" in refused("prepare_data", *out, "In sects")
    (tmp_path / "file").touch()
    line = refused("prepare_data", "arrayrecord", folder, "--out", tmp_path / "file", "--name", "insects")
    assert f"{tmp_path}/file: cannot be written: Not a directory" in line
    (folder / "train/ape/bad.jpg").write_text("no image")
    line = refused("prepare_data", *out, "insects")
    assert "bad.jpg: not an image that Pillow can read; mend or remove the file" in line and "on_error" not in line
