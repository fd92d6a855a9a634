"""A folder split once and for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from flaxcnn.data import DataError, image_folder
from flaxcnn.data.split_folder import split_folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for label, name in enumerate(("daisy", "rose")):
        (folder / name / "more").mkdir(parents=True)
        for i in range(10):
            place = folder / name / ("more" if i % 2 else "")
            Image.new("RGB", (4, 4), (label * 100, i * 20, 0)).save(place / f"{i}.png")
    (folder / "LICENSE.txt").write_text("no class")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_split_is_every_image_once(photographs: Path, tmp_path: Path) -> None:
    before = contents(photographs)
    counts = split_folder(photographs, tmp_path / "out", val_fraction=0.3)
    assert counts == {"train": {"daisy": 7, "rose": 7}, "val": {"daisy": 3, "rose": 3}}
    assert contents(photographs) == before
    after = contents(tmp_path / "out")
    assert {name.partition("/")[2]: data for name, data in after.items()} == {
        name: data for name, data in before.items() if name != "LICENSE.txt"
    }
    assert len(after) == 20
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_split_is_that_of_the_training(photographs: Path, tmp_path: Path) -> None:
    split_folder(photographs, tmp_path / "out", val_fraction=0.3, seed=1)
    for split in ("train", "val"):
        assert (
            image_folder(tmp_path / "out", split).files
            == image_folder(photographs, split, val_fraction=0.3, seed=1).files
        )
    split_folder(photographs, tmp_path / "other", val_fraction=0.3, seed=2)
    assert contents(tmp_path / "other").keys() != contents(tmp_path / "out").keys()


def test_what_cannot_be_split(photographs: Path, tmp_path: Path) -> None:
    split_folder(photographs, tmp_path / "out")
    for source, target, message in [
        (photographs, tmp_path / "out", "is there already: remove it"),
        (photographs, photographs / "out", "lies within"),
        (tmp_path / "out", tmp_path / "again", "is split already"),
        (tmp_path / "nowhere", tmp_path / "new", "no such folder"),
        (photographs, photographs / "LICENSE.txt" / "x" / ".." / "y", "lies within"),
        (photographs, Path("/proc/new"), "cannot write /proc/new"),
    ]:
        with pytest.raises(DataError, match=message):
            split_folder(source, target)
