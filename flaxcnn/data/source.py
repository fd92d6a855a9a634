"""What the loader reads: examples by index, held in memory or as files."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, TypedDict

import numpy as np
from PIL import Image

from flaxcnn.data.images import DataError, Decode, decode, read_file


class Example(TypedDict):
    image: Image.Image  # mode RGB; or what the source's decoder makes, if its transform takes that
    label: int | np.ndarray  # of several labels, float32 (classes,) of zeros and ones


class Source(Protocol):
    """A data set or a part of one, for random access: what Grain calls a random-access source, and what else is known
    of the examples without decoding them."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray:  # (n,) int64; where an example may have several, (n, classes) float32 of 0 and 1
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str:
        """What to call an example in a message or a gallery: its file, or where it stands in the data set."""
        ...

    def key(self, index: int) -> str:
        """What an example is called within its source, wherever that lies."""
        ...

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The source of these examples, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images held in memory, all of one size."""

    images: np.ndarray  # (n, h, w) or (n, h, w, 3) uint8
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

    def select(self, indices: Sequence[int] | np.ndarray) -> ArraySource:
        names = tuple(self.names[i] for i in indices)
        return replace(self, images=self.images[indices], labels=self.labels[indices], names=names)


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files, decoded when they are read."""

    root: Path
    files: tuple[str, ...]  # POSIX paths relative to root, or absolute
    labels: np.ndarray  # (n,) int64, or (n, classes) float32
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # unreadable files that were left out, as paths
    decode: Decode = decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        try:
            image = self.decode(read_file(self.name(index)), self.name(index))
        except DataError as error:
            advice = "mend or remove the file, or train without such files: on_error='skip', --data.on_error skip"
            raise DataError(error.reason, advice) from error
        return {"image": image, "label": label_of(self.labels, index)}

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])

    def key(self, index: int) -> str:
        return unicodedata.normalize("NFC", self.files[index])  # some file systems write an é as an e and an accent

    def select(self, indices: Sequence[int] | np.ndarray) -> FolderSource:
        return replace(self, files=tuple(self.files[i] for i in indices), labels=self.labels[indices])


def label_of(labels: np.ndarray, index: int) -> int | np.ndarray:
    """An example's class, or its row of zeros and ones where it may have several."""
    return int(labels[index]) if labels.ndim == 1 else labels[index]
