"""Decoded images in memory and on disk: the same pixels, decoded once, within bounds."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import CachedSource, DataError, cache, digits_splits, folder_splits, tfds_splits, write_arrayrecord
from flaxcnn.data.source import Example, FolderSource


@dataclass(frozen=True, eq=False)
class Counting(FolderSource):
    """Notes what it decodes."""

    decoded: list[int] = field(default_factory=list)

    def __getitem__(self, index: int) -> Example:
        self.decoded.append(index)
        return super().__getitem__(index)


@pytest.fixture
def source(tmp_path: Path) -> Counting:
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (10, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.jpg")
    plain = folder_splits(tmp_path / "images")["all"]()
    return Counting(plain.root, plain.files, plain.labels, plain.class_names)


def pixels(source, index: int) -> np.ndarray:
    return np.asarray(source[index]["image"])


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_an_image_is_decoded_once(source: Counting, tmp_path: Path, place: str) -> None:
    cached = CachedSource(source, tmp_path / "cache" if place == "disk" else None)
    expected = [pixels(source, i) for i in range(8)]
    source.decoded.clear()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for ours, theirs in zip(pool.map(lambda i: pixels(cached, i), range(8)), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert sorted(source.decoded) == list(range(8))
    assert [cached[i]["label"] for i in range(8)] == source.labels.tolist()
    assert (cached.name(3), cached.key(3), len(cached)) == (source.name(3), source.key(3), 8)
    np.testing.assert_array_equal(pixels(cached.select([5]), 0), expected[5])


def test_a_folder_serves_the_next_run_until_the_file_changes(source: Counting, tmp_path: Path) -> None:
    pixels(CachedSource(source, tmp_path / "cache"), 2)
    source.decoded.clear()
    again = CachedSource(source, tmp_path / "cache")
    pixels(again, 2)
    assert source.decoded == []
    Image.new("RGB", (4, 4)).save(source.name(2))
    assert pixels(again, 2).shape == (4, 4, 3)
    (file,) = (f for f in (tmp_path / "cache").iterdir() if f.stat().st_size < 400)
    file.write_bytes(file.read_bytes()[:-9])  # cut short
    assert pixels(again, 2).shape == (4, 4, 3) and source.decoded == [2, 2]


def test_a_data_set_that_is_prepared_anew_is_decoded_anew(tmp_path: Path) -> None:
    digits = digits_splits()["all"]()
    for first in (0, 10):
        part = digits.select(range(first, first + 4))
        shutil.rmtree(tmp_path / "sets", ignore_errors=True)
        write_arrayrecord("some", {"train": part}, tmp_path / "sets")
        cached = CachedSource(tfds_splits("some", data_dir=tmp_path / "sets")["train"](), tmp_path / "cache")
        for _ in range(2):
            for i in range(4):
                np.testing.assert_array_equal(pixels(cached, i), pixels(part, i))
    assert len(list((tmp_path / "cache").iterdir())) == 4  # in the place of the old ones
    np.testing.assert_array_equal(pixels(cached.select([2]), 0), pixels(digits, 12))


def test_examples_that_only_have_a_name_are_not_kept_on_disk(tmp_path: Path) -> None:
    """Another data set may call its examples the same."""
    digits = digits_splits()["all"]()
    flipped = replace(digits, images=digits.images[:, :, ::-1])
    for source in (digits, flipped):
        np.testing.assert_array_equal(pixels(CachedSource(source, tmp_path), 3), pixels(source, 3))


def test_memory_is_a_quarter_of_the_machines_at_most(source: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "memory", lambda: 4 * 3 * 10 * 20 * 3)
    cached = CachedSource(source)
    for _ in range(2):
        for i in range(8):
            pixels(cached, i)
    assert sorted(source.decoded) == [0, 1, 2, *sorted([*range(3, 8), *range(3, 8)])]


def test_a_full_disk_is_named_and_leaves_nothing_behind(
    source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    cached = CachedSource(source, tmp_path / "cache")
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"cannot be kept there: No space left on device"):
        cached[0]
    assert not list((tmp_path / "cache").iterdir())


def test_memory_is_bounded(source: Counting) -> None:
    cached = CachedSource(source, max_bytes=2 * 10 * 20 * 3)
    for _ in range(2):
        for i in range(8):
            pixels(cached, i)
    assert sorted(source.decoded) == [0, 1, *sorted([*range(2, 8), *range(2, 8)])]


def test_a_broken_file_is_named_as_ever(source: Counting, tmp_path: Path) -> None:
    Path(source.name(1)).write_bytes(b"no image")
    for folder in (None, tmp_path / "cache"):
        with pytest.raises(DataError, match=r"1.jpg: not an image"):
            CachedSource(source, folder)[1]


def test_a_folder_that_cannot_be_made_or_written_is_named(source: Counting, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=f"^{file}: .*cannot be kept there: File exists"):
        CachedSource(source, file)
    cached = CachedSource(source, tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    with pytest.raises(DataError, match=f"^{tmp_path / 'cache'}: .*cannot be kept there: No such file or directory"):
        cached[0]
