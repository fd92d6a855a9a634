"""Data sets as random-access sources: scikit-learn's digits, and folders of images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypedDict, cast

import numpy as np
from PIL import Image

from flaxcnn.data.images import DataError, load_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

Split = Literal["train", "val"]


class Example(TypedDict):
    image: Image.Image  # mode RGB
    label: int


class Source(Protocol):
    """What the loader reads: examples by index (Grain's random-access source), and what needs no decoding."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray:  # (n,) int64
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str:
        """What to call an example in a message or a gallery: its file, or where it stands in the data set."""
        ...

    def key(self, index: int) -> str:
        """What an example is called within its source, wherever that lies."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Greyscale images held in memory."""

    images: np.ndarray  # (n, h, w) uint8
    labels: np.ndarray  # (n,) int64
    class_names: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        image = Image.fromarray(self.images[index]).convert("RGB")
        return {"image": image, "label": int(self.labels[index])}

    def name(self, index: int) -> str:
        return self.names[index]

    def key(self, index: int) -> str:
        return self.names[index]


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files, decoded when they are read."""

    root: Path
    files: tuple[str, ...]  # POSIX paths relative to root
    labels: np.ndarray  # (n,) int64
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # unreadable files that were left out, as paths

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        try:
            image = load_image(self.name(index))
        except DataError as error:
            raise DataError(
                f"{error}; mend or remove the file, or leave such files out: on_error='skip', --data.on_error skip"
            ) from error
        return {"image": image, "label": int(self.labels[index])}

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])

    def key(self, index: int) -> str:
        return self.files[index]


def digits(split: Split, *, val_fraction: float = 0.2, seed: int = 0) -> ArraySource:
    """scikit-learn's handwritten digits: 1,797 greyscale images of 8x8 pixels, ten classes.

    Args:
        split: "train" or "val".
        val_fraction: the share of each class held out for "val".
        seed: which share it is.

    Returns:
        The split, with the images scaled from 0..16 to 0..255.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).
    """
    from sklearn.datasets import load_digits

    _check_split(split, val_fraction)
    bunch = cast(dict, load_digits())
    images = np.rint(bunch["images"] * (255 / 16)).astype(np.uint8)  # (n, 8, 8)
    labels = bunch["target"].astype(np.int64)
    names = tuple(f"digits[{i}]" for i in range(len(labels)))
    class_names = tuple(str(name) for name in bunch["target_names"])
    everything = ArraySource(images, labels, class_names, names)
    chosen = _stratified(everything, names, split, val_fraction, seed)
    return ArraySource(images[chosen], labels[chosen], class_names, tuple(names[i] for i in chosen))


def image_folder(
    path: str | os.PathLike[str],
    split: Split,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    on_error: Literal["fail", "skip"] = "fail",
) -> FolderSource:
    """A folder of images, one sub-folder a class.

    Either the splits are folders (`path/train/<class>/...`, and beside it `val`, `validation` or `valid`, or,
    where there is none of these, `test`), or `path/<class>/...` holds everything and a stratified share of it
    becomes "val": the same files on any machine, for it depends only on their names and the seed. Classes are
    numbered in the order of their names. Sub-folders of a class count as part of it; hidden files, and files
    that are no images by their extension, do not count.

    Args:
        path: the folder.
        split: "train" or "val".
        val_fraction: the share of each class held out, where the splits are not folders.
        seed: which share it is.
        on_error: "fail" raises when an unreadable file is met in loading. "skip" decodes every file here,
            which costs a pass over the data, and leaves out the unreadable ones: `source.skipped` names them.

    Returns:
        The split.

    Raises:
        DataError: the folder is missing or does not look like that.
    """
    _check_split(split, val_fraction)
    if on_error not in ("fail", "skip"):
        raise ValueError(f'on_error: expected "fail" or "skip", got {on_error!r}')
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of images, found a file")
    if _has_split_folders(root):
        source = _split_folders(root, split)
    else:
        everything = _scan(root, _class_names(root))
        chosen = _stratified(everything, everything.files, split, val_fraction, seed)
        source = _select(everything, chosen)
    return _without_unreadable(source, split) if on_error == "skip" else source


def _check_split(split: str, val_fraction: float) -> None:
    if split not in ("train", "val"):
        raise ValueError(f'split: expected "train" or "val", got {split!r}')
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction: expected a share between 0 and 1, got {val_fraction}")


def _has_split_folders(root: Path) -> bool:
    """Whether `root/train` is a split. It may also be a class of that name, which has images right inside."""
    train = root / "train"
    return train.is_dir() and not any(_is_image(entry.name) for entry in train.iterdir())


def _split_folders(root: Path, split: Split) -> FolderSource:
    train, held_out = root / "train", _held_out_folder(root)
    in_train, in_held_out = _class_names(train), _class_names(held_out)
    if in_train != in_held_out:
        raise DataError(
            f"{root}: the classes of train and {held_out.name} differ: "
            f"only in train: {_names(set(in_train) - set(in_held_out))}; "
            f"only in {held_out.name}: {_names(set(in_held_out) - set(in_train))}"
        )
    return _scan(train if split == "train" else held_out, in_train)


def _names(class_names: set[str]) -> str:
    return ", ".join(sorted(class_names)) or "none"


def _held_out_folder(root: Path) -> Path:
    found = [name for name in ("val", "validation", "valid") if (root / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"{root}: {' and '.join(found)} are both there: keep one")
    name = found[0] if found else "test"
    if not (root / name).is_dir():
        raise DataError(
            f"{root}: no folder val, validation, valid or test beside train: "
            f"add one, or name {root / 'train'} to have a share of it held out"
        )
    return root / name


def _class_names(root: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    if not names:
        raise DataError(f"{root}: no class folders in it (expected {root.name}/<class>/<image>)")
    if len(names) == 1:
        raise DataError(f"{root}: only one class folder, {names[0]!r}: expected two or more")
    return tuple(names)


def _scan(root: Path, class_names: tuple[str, ...]) -> FolderSource:
    """All images below `root`, sorted by class, then by path."""
    files, labels = [], []
    for label, class_name in enumerate(class_names):
        members = sorted(f"{class_name}/{file}" for file in _images_below(root / class_name))
        if not members:
            raise DataError(f"{root / class_name}: no images in this class folder")
        files += members
        labels += [label] * len(members)
    return FolderSource(root, tuple(files), np.array(labels, np.int64), class_names)


def _images_below(folder: Path) -> Iterator[str]:
    """POSIX paths relative to `folder`; plain strings, as there may be millions."""

    def fail(error: OSError) -> None:
        raise error  # A folder that cannot be listed must not pass for an empty one.

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in files if _is_image(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _stratified(source: Source, keys: Sequence[str], split: Split, fraction: float, seed: int) -> list[int]:
    """The indices of a split, ascending.

    A class's examples are ranked by a hash of their keys, which no order of listing and no library's random
    numbers can change.
    """
    chosen: list[int] = []
    for label in np.unique(source.labels):
        members = np.flatnonzero(source.labels == label).tolist()
        if len(members) < 2:
            raise DataError(f"{source.name(members[0])}: alone in its class, too few to hold a share out for val")
        held_out = min(max(round(len(members) * fraction), 1), len(members) - 1)
        ranked = sorted(members, key=lambda i: _digest(f"{seed}:{keys[i]}"))
        chosen += ranked[:held_out] if split == "val" else ranked[held_out:]
    return sorted(chosen)


def _digest(text: str) -> bytes:
    return hashlib.sha256(os.fsencode(text)).digest()


def _select(source: FolderSource, indices: list[int], skipped: tuple[str, ...] = ()) -> FolderSource:
    files = tuple(source.files[i] for i in indices)
    return FolderSource(source.root, files, source.labels[indices], source.class_names, skipped)


def _without_unreadable(source: FolderSource, split: Split) -> FolderSource:
    def is_readable(index: int) -> bool:
        try:
            load_image(source.name(index))
        except DataError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        readable = list(pool.map(is_readable, range(len(source))))
    skipped = tuple(source.name(i) for i, good in enumerate(readable) if not good)
    kept = _select(source, [i for i, good in enumerate(readable) if good], skipped)
    lost = sorted(set(source.labels.tolist()) - set(kept.labels.tolist()))
    if lost and (split == "train" or not len(kept)):
        raise DataError(f"{source.root / source.class_names[lost[0]]}: no image for {split} is readable")
    return kept
