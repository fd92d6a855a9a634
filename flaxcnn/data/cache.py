"""Decoded images kept, so that an epoch after the first decodes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from flaxcnn.data.images import DataError
from flaxcnn.data.machine import memory
from flaxcnn.data.source import Example, Source, label_of


class CachedSource:
    """A source whose images are decoded once.

    A pixel takes 3 bytes: a photograph of 500x375 half a megabyte, ten times its JPEG file.

    Args:
        source: of the examples.
        folder: where to keep the images, a file each; None keeps them in memory. A file that has changed since, by its
            size or its time, is decoded anew in the place of the old one, and so are the records of a data set that was
            prepared anew. Examples that are neither files nor of a source with a `version` are not kept there.
        max_bytes: of pixels in memory, of this source; what does not fit is decoded each time. By default 8 GiB, or a
            quarter of the machine's memory, or its container's, where that is less.

    Raises:
        DataError: the folder cannot be made or written.
    """

    def __init__(self, source: Source, folder: str | os.PathLike[str] | None = None, *, max_bytes: int | None = None):
        self.source = source
        self._folder = None if folder is None else Path(folder)
        self._max_bytes = min(8 * 2**30, memory() // 4) if max_bytes is None else max_bytes
        self._bytes = 0
        self._images: dict[int, np.ndarray] = {}  # index -> (h, w, 3) uint8
        self._lock = threading.Lock()
        if self._folder is not None:
            with _naming(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As of the source."""
        return self.source.class_names

    @property
    def labels(self) -> np.ndarray:
        """As of the source."""
        return self.source.labels

    @property
    def skipped(self) -> tuple[str, ...]:
        """As of the source."""
        return getattr(self.source, "skipped", ())

    def __reduce__(self) -> tuple[type[CachedSource], tuple[Source, Path]]:
        if self._folder is None:
            raise DataError(
                "images that are kept in memory cannot be sent to processes that load",
                "keep them in a folder (CachedSource(source, FOLDER), --data.cache FOLDER), or load by threads",
            )
        return CachedSource, (self.source, self._folder)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        pixels = self._in_memory(index) if self._folder is None else self._on_disk(index, self._folder)
        return {"image": Image.fromarray(pixels), "label": label_of(self.labels, index)}

    def name(self, index: int) -> str:
        """As of the source."""
        return self.source.name(index)

    def key(self, index: int) -> str:
        """As of the source."""
        return self.source.key(index)

    def select(self, indices: Sequence[int] | np.ndarray) -> CachedSource:
        """The source of these examples, with a memory of its own."""
        return CachedSource(self.source.select(indices), self._folder, max_bytes=self._max_bytes)

    def _in_memory(self, index: int) -> np.ndarray:
        if (kept := self._images.get(index)) is not None:
            return kept
        pixels = np.asarray(self.source[index]["image"])
        with self._lock:
            if index not in self._images and self._bytes + pixels.nbytes <= self._max_bytes:
                self._images[index] = pixels
                self._bytes += pixels.nbytes
        return pixels

    def _on_disk(self, index: int, folder: Path) -> np.ndarray:
        version = self._version(index)
        if version is None:
            return np.asarray(self.source[index]["image"])
        file = folder / f"{_digest(self.source.name(index)).hex()[:32]}.npy"
        # Not there yet, or cut short as the machine stopped.
        with contextlib.suppress(OSError, ValueError, EOFError), file.open("rb") as stream:
            if stream.read(len(version)) == version:
                return np.load(stream)
        pixels = np.asarray(self.source[index]["image"])
        unfinished = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with _naming(folder):
            try:
                with unfinished.open("wb") as stream:
                    stream.write(version)
                    np.save(stream, pixels)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        return pixels

    def _version(self, index: int) -> bytes | None:
        """A hash of the example's file's size and time, or else of its source's version; None without."""
        version = getattr(self.source, "version", None)  # of records, which are no files of their own
        if version is None:
            try:
                stat = os.stat(self.source.name(index))  # noqa: PTH116, a third of the time of Path.stat
            except OSError:
                return None  # a name alone may be another image's in another data set
            version = f"{stat.st_size}:{stat.st_mtime_ns}"
        return _digest(version)


def _digest(text: str) -> bytes:
    return hashlib.sha256(os.fsencode(text)).digest()


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: decoded images cannot be kept there: {error.strerror}") from error
