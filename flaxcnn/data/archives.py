"""MNIST, Fashion-MNIST and CIFAR from the files that their authors published, in a local folder."""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import shlex
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from flaxcnn.data.images import DataError
from flaxcnn.data.source import ArraySource

FASHION_MNIST_FOLDER = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it

_DIGITS = tuple("0123456789")
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_MNIST_COMMAND = (
    "curl --fail --create-dirs --output-dir {path} --remote-name "
    "'https://ossci-datasets.s3.amazonaws.com/mnist/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz'"
)
_CIFAR_COMMAND = "mkdir -p {path} && curl --fail https://www.cs.toronto.edu/~kriz/{archive} | tar -xz -C {path}"


def mnist_splits(path: str | os.PathLike[str]) -> dict[str, Callable[[], ArraySource]]:
    """MNIST's "train" (60,000) and "test" (10,000): greyscale digits of 28x28 pixels.

    Args:
        path: the folder with the four IDX files, gzipped or not.

    Raises:
        DataError: (from the functions) files are missing or are not what they should be.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    command = _MNIST_COMMAND.format(path=shlex.quote(str(path)))
    return {split: partial(_idx, Path(path), "MNIST", split, _DIGITS, command) for split in ("train", "test")}


def fashion_mnist_splits(
    path: str | os.PathLike[str] = FASHION_MNIST_FOLDER,
) -> dict[str, Callable[[], ArraySource]]:
    """Fashion-MNIST's "train" (60,000) and "test" (10,000): greyscale clothes of 28x28 pixels.

    Args:
        path: the folder with the four IDX files, gzipped or not.

    Raises:
        DataError: (from the functions) files are missing or are not what they should be.

    Source: Xiao et al., Fashion-MNIST, 2017 (arXiv 1708.07747).
    """
    command = f"apt-get install dataset-fashion-mnist, which puts it into {FASHION_MNIST_FOLDER}"
    return {split: partial(_idx, Path(path), "Fashion-MNIST", split, _CLOTHES, command) for split in ("train", "test")}


def _idx(folder: Path, title: str, split: str, class_names: tuple[str, ...], command: str) -> ArraySource:
    stem = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(_idx_file(folder, title, f"{stem}-images-idx3-ubyte", command), (28, 28))
    file = _idx_file(folder, title, f"{stem}-labels-idx1-ubyte", command)
    labels = _read_idx(file, ()).astype(np.int64)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {title} has {len(images)} {split} images and {len(labels)} labels: get it anew")
    if len(labels) and labels.max() >= len(class_names):
        raise DataError(f"{file}: label {labels.max()} where there are {len(class_names)} classes")
    return ArraySource(images, labels, class_names, tuple(f"{split}[{i}]" for i in range(len(labels))))


def _idx_file(folder: Path, title: str, name: str, command: str) -> Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise DataError(f"{title}: there is no {name}.gz in {folder}; get it: {command}; or put it there by hand")


def _read_idx(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An IDX file of bytes: (n, *shape) uint8."""
    opener: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rb") as stream:
            header = np.frombuffer(stream.read(4 + 4 * (1 + len(shape))).ljust(16, b"\0")[:16], ">u4")
            if header[0] != 0x0800 + 1 + len(shape) or (*header[2 : 2 + len(shape)],) != shape:
                raise DataError(f"{file}: not an IDX file of {'x'.join(map(str, shape)) or 'single'} bytes")
            expected = int(header[1]) * math.prod(shape)
            values = np.frombuffer(_read_up_to(stream, expected), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: damaged ({error}): get it anew") from error
    if values.size != expected:
        raise DataError(f"{file}: it ends before its {header[1]} examples do: get it anew")
    return values.reshape(-1, *shape)


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """As `stream.read(size)`, which would first take all the memory that a damaged header claims."""
    pieces = []
    while size and (piece := stream.read(min(size, 2**20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


@dataclass(frozen=True)
class _Layout:
    """One of the forms that CIFAR is published in."""

    archive: str
    folder: str
    files: dict[str, tuple[str, ...]]  # split -> batches
    class_names: str
    read: Callable[[bytes], tuple[np.ndarray, np.ndarray]]  # -> rows (n, 3072) uint8, labels (n,)
    read_names: Callable[[bytes], list[str]]


def cifar10_splits(path: str | os.PathLike[str]) -> dict[str, Callable[[], ArraySource]]:
    """CIFAR-10's "train" (50,000) and "test" (10,000): photographs of 32x32 pixels, ten classes.

    Args:
        path: the published archive (the python or the binary one), the folder that it unpacks to, or the folder that
            either lies in. Nothing in a pickle is executed.

    Raises:
        DataError: (from the functions) there is no such archive, or it is damaged.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return {split: partial(_cifar, Path(path), "CIFAR-10", _CIFAR10, split) for split in ("train", "test")}


def cifar100_splits(path: str | os.PathLike[str]) -> dict[str, Callable[[], ArraySource]]:
    """CIFAR-100's "train" (50,000) and "test" (10,000), with its 100 fine classes; otherwise as `cifar10_splits`."""
    return {split: partial(_cifar, Path(path), "CIFAR-100", _CIFAR100, split) for split in ("train", "test")}


def _cifar(path: Path, title: str, layouts: tuple[_Layout, ...], split: str) -> ArraySource:
    layout, read = _find(path, title, layouts)
    names = (*layout.files[split], layout.class_names)
    contents = read(names)
    try:
        batches = [layout.read(contents[name]) for name in layout.files[split]]
        class_names = tuple(layout.read_names(contents[layout.class_names]))
        rows = np.concatenate([rows for rows, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        _check_fit(rows, labels, len(class_names))
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: {title} cannot be read ({reason}): get it anew") from error
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # (n, h, w, c)
    names = tuple(f"{split}[{i}]" for i in range(len(labels)))
    return ArraySource(images, labels.astype(np.int64), class_names, names)


# What the unpickler and NumPy raise on bytes that are not what they say.
_DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, MemoryError),
    *(ImportError, struct.error, pickle.UnpicklingError),
)


def _check_fit(rows: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Raises ValueError unless these are rows (n, 3072) uint8 of pixels and labels (n,) of that many classes."""
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or rows.shape != (len(labels), 3072) or rows.dtype != np.uint8:
        raise ValueError("images and labels do not fit each other")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError("images and labels do not fit each other")


_Read = Callable[[tuple[str, ...]], dict[str, bytes]]


def _find(path: Path, title: str, layouts: tuple[_Layout, ...]) -> tuple[_Layout, _Read]:
    """Which of the published forms is there, and what reads its files."""
    for layout in layouts:
        for folder in (path, path / layout.folder):
            if (folder / layout.class_names).is_file():
                return layout, partial(_read_folder, folder)
        for archive in (path, path / layout.archive):
            if archive.is_file() and archive.name == layout.archive:
                return layout, partial(_read_archive, archive, layout.folder)
    if path.is_file():
        raise DataError(f"{path}: not an archive of {title} ({' or '.join(layout.archive for layout in layouts)})")
    archive = layouts[0].archive
    raise DataError(
        f"{title}: there is no {layouts[0].folder} in {path}; get it: "
        f"{_CIFAR_COMMAND.format(path=shlex.quote(str(path)), archive=archive)}; or put {archive} there by hand"
    )


def _read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {missing[0]} is missing: get it anew")
    return {name: (folder / name).read_bytes() for name in names}


def _read_archive(archive: Path, folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    wanted, contents = {f"{folder}/{name}": name for name in names}, {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name in wanted and (file := tar.extractfile(member)) is not None:
                    contents[wanted[member.name]] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged ({error}): get it anew") from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{archive}: {missing[0]} is missing: get it anew")
    return contents


class _Pixels:
    """Stands for a pickled array of bytes. NumPy itself trusts a pickle, a damaged one too, with its memory."""

    values: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, _, fortran, content = state
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Bytes:
    """Stands for the pickled dtype of bytes."""

    def __init__(self, name: bytes | str, *_: int) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {name!r}")

    def __setstate__(self, state: tuple) -> None:
        """Bytes have neither an order nor fields."""


def _reconstruct(*_: object) -> _Pixels:
    return _Pixels()


class _Unpickler(pickle.Unpickler):
    """Makes arrays of bytes and Python's own values, and nothing else."""

    _ALLOWED: ClassVar = {"_reconstruct": _reconstruct, "ndarray": _Pixels, "dtype": _Bytes}

    def find_class(self, module: str, name: str) -> Any:
        if name not in self._ALLOWED or module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._ALLOWED[name]


def _unpickle(content: bytes) -> dict[bytes, Any]:
    """A dictionary that Python 2 pickled."""
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()


def _python(labels: bytes, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(content)
    if not isinstance(batch[b"data"], _Pixels):
        raise ValueError("its data is no array of bytes")
    return batch[b"data"].values, np.asarray(batch[labels])


def _python_names(key: bytes, content: bytes) -> list[str]:
    return [name.decode() for name in _unpickle(content)[key]]


def _binary(label_bytes: int, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of labels, of which the last is the finest, and 3,072 bytes of pixels."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _binary_names(content: bytes) -> list[str]:
    return content.decode().split()


_CIFAR10 = (
    _Layout(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        partial(_python, b"labels"),
        partial(_python_names, b"label_names"),
    ),
    _Layout(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        "batches.meta.txt",
        partial(_binary, 1),
        _binary_names,
    ),
)
_CIFAR100 = (
    _Layout(
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "meta",
        partial(_python, b"fine_labels"),
        partial(_python_names, b"fine_label_names"),
    ),
    _Layout(
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        partial(_binary, 2),
        _binary_names,
    ),
)
