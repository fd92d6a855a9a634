"""A look at a whole data set before it is trained on: counts, sizes, and files that are broken, doubled or leaked."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flaxcnn.data.folder import images_below, other_files
from flaxcnn.data.images import DataError
from flaxcnn.data.machine import in_threads
from flaxcnn.data.source import Source


@dataclass(frozen=True)
class Report:
    """What `check_data` found.

    Attributes:
        counts: split -> class -> examples; an example with several labels counts for each.
        examples: split -> examples.
        unlabelled: split -> examples without any label.
        sizes: the least, the median and the greatest width, and the same of the height, in pixels.
        broken: a line for each image that cannot be read, with its name.
        duplicates: names of images of the same pixels, within one split.
        leaked: names of images of the same pixels in more than one split.
        contradictions: names of images of the same pixels with different labels.
        passed_over: images of the folder that are in no class of these splits.
        other_files: ending -> how many files of the folder are no images by it.
        alone: classes of one image, where a share of each is yet to be held out.
    """

    counts: Mapping[str, Mapping[str, int]]
    examples: Mapping[str, int]
    unlabelled: Mapping[str, int]
    sizes: Mapping[str, tuple[int, int, int]]
    broken: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaked: tuple[tuple[str, ...], ...]
    contradictions: tuple[tuple[str, ...], ...]
    passed_over: tuple[str, ...] = ()
    other_files: Mapping[str, int] = field(default_factory=dict)
    alone: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to mend; duplicates within a split and other files are only told."""
        return not (self.broken or self.leaked or self.contradictions or self.alone)


@dataclass(frozen=True)
class _Seen:
    split: str
    name: str
    label: bytes
    size: tuple[int, int] = (0, 0)
    pixels: bytes = b""
    error: str | None = None


def check_data(splits: Mapping[str, Source], folder: str | os.PathLike[str] | None = None) -> Report:
    """Decodes every image of a data set once.

    Args:
        splits: of the same classes; "all" where nothing is held out yet.
        folder: that they are of, to tell what else is in it.

    Returns:
        What was found. Images are the same where their decoded pixels are, whatever file format holds them.
    """
    seen = [example for split, source in splits.items() for example in _look(split, source)]
    whole = [example for example in seen if example.error is None]
    same: dict[bytes, list[_Seen]] = defaultdict(list)
    for example in whole:
        same[example.pixels].append(example)
    groups = [group for group in same.values() if len(group) > 1]
    counts = {split: class_counts(source) for split, source in splits.items()}
    return Report(
        counts=counts,
        examples={split: len(source) for split, source in splits.items()},
        unlabelled={split: _unlabelled(source) for split, source in splits.items()},
        sizes={
            side: (min(values), int(np.median(values)), max(values))
            # None of either where nothing can be read.
            for side, values in zip(("width", "height"), zip(*(e.size for e in whole), strict=True), strict=False)
        },
        broken=tuple(example.error for example in seen if example.error is not None),
        duplicates=_names(g for g in groups if len({e.split for e in g}) < len(g)),
        leaked=_names(g for g in groups if len({e.split for e in g}) > 1),
        contradictions=_names(g for g in groups if len({e.label for e in g}) > 1),
        passed_over=() if folder is None else _passed_over(splits, Path(folder)),
        other_files={} if folder is None else other_files(folder),
        alone=alone_in_class(splits["all"]) if "all" in splits else (),
    )


def _unlabelled(source: Source) -> int:
    return int((source.labels.sum(axis=1) == 0).sum()) if source.labels.ndim > 1 else 0


def _passed_over(splits: Mapping[str, Source], folder: Path) -> tuple[str, ...]:
    """Images that lie beside the class folders, say."""
    known = {source.name(i) for source in splits.values() for i in range(len(source))}
    return tuple(sorted({str(folder / file) for file in images_below(folder)} - known))


def _look(split: str, source: Source) -> list[_Seen]:
    def look(index: int) -> _Seen:
        name, label = source.name(index), source.labels[index].tobytes()
        try:
            image = source[index]["image"]
        except DataError as error:
            return _Seen(split, name, label, error=error.reason)
        pixels = hashlib.sha256(np.asarray(image).tobytes() + str(image.size).encode()).digest()
        return _Seen(split, name, label, image.size, pixels)

    return list(in_threads(look, range(len(source))))


def alone_in_class(source: Source) -> tuple[str, ...]:
    """Classes of one image, of which no share can be held out; none where an image may have several labels."""
    return tuple(name for name, n in class_counts(source).items() if n == 1) if source.labels.ndim == 1 else ()


def class_counts(source: Source) -> dict[str, int]:
    """Class -> examples; one with several labels counts for each."""
    if source.labels.ndim == 1:
        counts = Counter(source.labels.tolist())
        return {name: counts[i] for i, name in enumerate(source.class_names)}
    return dict(zip(source.class_names, source.labels.sum(axis=0).astype(int).tolist(), strict=True))


def _names(groups) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(example.name for example in group) for group in groups)
