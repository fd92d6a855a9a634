"""A folder of images, split once and for all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

from flaxcnn.data.folder import image_folder
from flaxcnn.data.images import DataError
from flaxcnn.data.splits import VAL_FRACTION


def split_folder(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, val_fraction: float = VAL_FRACTION, seed: int = 0
) -> dict[str, dict[str, int]]:
    """Copy a folder with a folder a class to one with `train/` and `val/` and a folder a class in each.

    The split is that of `image_folder`: it depends on the names of the files and the seed alone.

    Args:
        source: the folder, which is left as it is.
        target: a new folder, which is whole or not there at all.
        val_fraction: the share of each class held out.
        seed: which share it is.

    Returns:
        Split -> class -> how many images.

    Raises:
        DataError: when the source does not look like that, is split already, or the target is there already.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise DataError(f"{target} is there already: remove it, or name another folder")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target} lies within {source}: name another folder")
    sources = {split: image_folder(source, split, val_fraction=val_fraction, seed=seed) for split in ("train", "val")}
    if any(each.root != source for each in sources.values()):
        raise DataError(f"{source} is split already: it has {sources['train'].root.name}/; train on it as it is")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for split, images in sources.items():
            for file in images.files:
                copy = unfinished / split / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / file, copy)
        unfinished.rename(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.filename}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {
        split: dict(Counter(images.class_names[label] for label in images.labels)) for split, images in sources.items()
    }
