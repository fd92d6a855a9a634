"""Folders of images, a sub-folder a class."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from flaxcnn.data.images import DataError, load_image
from flaxcnn.data.machine import in_threads
from flaxcnn.data.source import FolderSource
from flaxcnn.data.splits import HELD_OUT, VAL_FRACTION, Split, choose, group_of

# What torchvision's ImageFolder takes, and what else Pillow reads that holds pictures (no documents, films or icons).
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf", ".tga", ".pcx", ".qoi"),
)


def image_folder(
    path: str | os.PathLike[str],
    split: Split,
    *,
    val_fraction: float = VAL_FRACTION,
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
    if on_error not in ("fail", "skip"):
        raise ValueError(f'on_error: expected "fail" or "skip", got {on_error!r}')
    source = choose(folder_splits(path), split, val_fraction=val_fraction, seed=seed)
    return without_unreadable(source, split) if on_error == "skip" else source


def folder_splits(path: str | os.PathLike[str]) -> dict[str, Callable[[], FolderSource]]:
    """The splits of a folder of images: "train" and the one held out, or "all" where they are not folders.

    Raises:
        DataError: the folder is missing or does not look like that.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such folder; name one with a folder a class in it")
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with a folder a class in it, found a file")
    if not _has_split_folders(root):
        if held_out := _held_out_alone(root):  # enough to evaluate
            return {folder.name: partial(_scan, folder, _class_names(folder)) for folder in held_out}
        _refuse_splits(root)
        return {"all": lambda: _scan(root, _class_names(root))}
    train, held_out = root / "train", _held_out_folder(root)
    class_names = _shared_class_names(train, held_out)
    splits: dict[str, Callable[[], FolderSource]] = {
        folder.name: partial(_scan, folder, class_names) for folder in (train, held_out)
    }
    test = root / "test"
    if test.is_dir() and test != held_out and _class_folders(test):  # it may be of images without labels, too
        splits["test"] = lambda: _scan(test, _shared_class_names(train, test))
    return splits


def _has_split_folders(root: Path) -> bool:
    """Whether `root/train` is a split. It may also be a class of that name, which has images right inside."""
    train = root / "train"
    if not train.is_dir():
        return False
    if _class_folders(train) and any((root / name).is_dir() for name in HELD_OUT):
        return True  # whatever image strayed into it
    return not any(_is_image(entry.name) for entry in train.iterdir())


def _held_out_alone(root: Path) -> list[Path]:
    """Folders of splits that are held out, where nothing else is there."""
    folders = [root / name for name in _class_folders(root)]
    return folders if all(folder.name in HELD_OUT and _class_folders(folder) for folder in folders) else []


_SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev")


def _refuse_splits(root: Path) -> None:
    """Raises DataError where folders look like splits and would be taken for classes."""
    names = _class_folders(root)
    if names and all(name.lower() in _SPLIT_NAMES and _class_folders(root / name) for name in names):
        raise DataError(
            f"{root}: not classes but splits by their names: {', '.join(names)}",
            "name them train and val (or validation, valid, test)",
        )


def _shared_class_names(train: Path, held_out: Path) -> tuple[str, ...]:
    in_train, in_held_out = _class_names(train), _class_names(held_out)
    if in_train != in_held_out and _composed(in_train) == _composed(in_held_out):
        raise DataError(
            f"{train.parent}: the classes of train and {held_out.name} differ in how accents are written (Unicode's "
            f"NFC and NFD): {', '.join(ascii(name) for name in sorted(set(in_train) ^ set(in_held_out)))}",
            "rename either",
        )
    if in_train != in_held_out:
        raise DataError(
            f"{train.parent}: the classes of train and {held_out.name} differ: "
            f"only in train: {_names(set(in_train) - set(in_held_out))}; "
            f"only in {held_out.name}: {_names(set(in_held_out) - set(in_train))}"
        )
    return in_train


def _composed(names: tuple[str, ...]) -> list[str]:
    return sorted(unicodedata.normalize("NFC", name) for name in names)


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
    names = _class_folders(root)
    if not names:
        raise DataError(f"{root}: no class folders in it (expected {root.name}/<class>/<image>)")
    if len(names) == 1:
        deeper = _class_folders(root / names[0])
        advice = f"if the classes lie in it, name {root / names[0]}" if len(deeper) > 1 else None
        raise DataError(f"{root}: only one class folder, {names[0]!r}: expected two or more", advice)
    return names


def _class_folders(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name)))


def _scan(root: Path, class_names: tuple[str, ...]) -> FolderSource:
    """All images below `root`, sorted by class, then by path."""
    files, labels, empty = [], [], []
    for label, class_name in enumerate(class_names):
        members = sorted(f"{class_name}/{file}" for file in images_below(root / class_name))
        if not members:
            empty.append(root / class_name)
        _check_text(root, members)
        files += members
        labels += [label] * len(members)
    if empty:
        raise _without_images(empty)
    return FolderSource(root, tuple(files), np.array(labels, np.int64), class_names)


def _without_images(folders: list[Path]) -> DataError:
    others = sum((Counter(other_files(folder)) for folder in folders), Counter())
    found = ", ".join(f"{number} {ending or 'without an ending'}" for ending, number in sorted(others.items()))
    convert = f"convert what there is ({found}), " if others else ""
    those, it = ("this class folder", "it") if len(folders) == 1 else ("these class folders", "them")
    return DataError(f"{', '.join(map(str, folders))}: no images in {those}: {convert}add some, or remove {it}")


def _check_text(root: Path, files: list[str]) -> None:
    """Raises DataError unless the names are text: others can be neither printed nor kept."""
    if not _is_text("".join(files)):
        file = next(file for file in files if not _is_text(file))
        raise DataError(f"{root}/{file.encode(errors='backslashreplace').decode()}: this name is not UTF-8: rename it")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def images_below(folder: Path) -> Iterator[str]:
    """POSIX paths of a folder's images, relative to it; plain strings, as there may be millions."""
    for parent, files in _visible(folder):
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in files if _is_image(name))


def _visible(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folders below one, itself too, and the names of the files in each, without hidden ones.

    Links to folders are followed, as torchvision does, but into no folder twice: a link may lead back.
    """

    def fail(error: OSError) -> None:  # A folder that cannot be listed must not pass for an empty one.
        raise DataError(f"{error.filename}: {error.strerror}") from error

    seen = set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield parent, [name for name in files if not _is_hidden(name)]


def other_files(path: str | os.PathLike[str]) -> dict[str, int]:
    """How many files below a folder do not count because of their ending, by their endings in lower case."""
    names = (name for _, files in _visible(Path(path)) for name in files if not _is_image(name))
    return dict(Counter(Path(name).suffix.lower() for name in names))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # which macOS puts into archives


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def skipped_lines(*sources: object) -> list[str]:
    """Lines that name the images that `without_unreadable` left out of sources."""
    files = [file for source in sources for file in getattr(source, "skipped", ())]
    return [f"left out, unreadable ({i} of {len(files)}): {file}" for i, file in enumerate(files, 1)]


def without_unreadable(source: FolderSource, split: Split) -> FolderSource:
    """Decodes every file once and leaves out those that cannot be read; `skipped` names them.

    Raises:
        DataError: nothing is left of a class in training, or nothing at all.
    """

    def reason(index: int) -> str | None:
        try:
            load_image(source.name(index))
        except DataError as error:
            return str(error)
        return None

    reasons = list(in_threads(reason, range(len(source))))
    readable = np.array([each is None for each in reasons])
    skipped = tuple(source.name(i) for i in np.flatnonzero(~readable).tolist())
    kept = replace(source.select(np.flatnonzero(readable)), skipped=skipped)
    before, after = group_of(source), group_of(kept)
    lost = sorted(set(before.tolist()) - set(after.tolist()))
    if lost and (split == "train" or not len(kept)):
        of = f"class {source.class_names[lost[0]]}: no image of it" if source.labels.ndim == 1 else "no image"
        example = next(each for each, group in zip(reasons, before, strict=True) if group == lost[0])
        raise DataError(f"{of} for {split} is readable ({example})", "mend them, or leave the class out")
    return kept
