"""PyTorch's files, the zip format and the legacy one, read and written without PyTorch.

The file is mapped into memory and tensors are views of it, so that reading takes no memory for their numbers, whatever
sizes a file declares. Each view is checked against the bytes that are there before it is made.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flaxcnn.weights import pickles
from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.pickles import STORAGE_NAMES, Storage, Tensor

Data = dict[str, memoryview]
"""Bytes by the storage's key."""

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# What the pickle machine, zipfile, struct and NumPy raise on bytes that are not what they say.
_DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, NotImplementedError),
    *(struct.error, zipfile.BadZipFile),
)
_MAX_DIRECTORY = 4 * 2**20
_MAX_DIMENSIONS = 8
_ALIGNMENT = 64
# The signature, 22 bytes we have no use for, and the lengths of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_torch_file(path: Path) -> tuple[Any, Callable[[Tensor], np.ndarray]]:
    """Read what `torch.save` wrote.

    Args:
        path: of a file that begins with a zip's or a pickle's signature.

    Returns:
        What was saved, with a `Tensor` for each tensor, and a function that makes an array of one: read-only, a view
        of the file.

    Raises:
        WeightsError: when the file is damaged, or holds what weights do not need.
    """
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with _refusing_damage():
        saved, data = _read_zip(content) if content[:4] == ZIP_MAGIC else _read_legacy(content)

    def array(tensor: Tensor) -> np.ndarray:
        with _refusing_damage():
            return _array(tensor, data[tensor.storage.key])

    return saved, array


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise WeightsError(f"it is damaged or not a PyTorch file ({reason:.100})") from error


def _array(tensor: Tensor, data: memoryview) -> np.ndarray:
    storage, offset, shape, stride = tensor
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        raise WeightsError(f"a tensor has {len(shape):,} dimensions and {len(stride):,} strides")
    if not all(type(n) is int and 0 <= n <= storage.numel for n in (offset, *shape, *stride)):
        raise WeightsError("a tensor's shape, strides or offset exceed its storage")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count > storage.numel or (count > 0 and last >= storage.numel):
        raise WeightsError(f"a tensor of shape {shape}, strides {stride} and offset {offset} exceeds its storage")
    itemsize = storage.dtype.itemsize
    return np.ndarray(shape, storage.dtype, data, offset * itemsize, [step * itemsize for step in stride])


# -- zip


def _read_zip(content: memoryview) -> tuple[Any, Data]:
    archive = zipfile.ZipFile(_Bounded(content))
    entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "data.pkl" not in entries:
        raise WeightsError("it is a zip file, but not one of PyTorch's: it has no data.pkl")
    if "byteorder" in entries and bytes(_entry(content, entries["byteorder"])[:8]) != b"little":
        raise WeightsError("its numbers are big-endian, which is not supported")
    description = _entry(content, entries["data.pkl"])
    if len(description) > pickles.MAX_BYTES:
        raise WeightsError(f"its pickle is longer than {pickles.MAX_BYTES:,} bytes")

    saved, storages = pickles.load(io.BytesIO(description))
    data = {key: _checked(_entry(content, entries[f"data/{key}"]), storage) for key, storage in storages.items()}
    return saved, data


def _entry(content: memoryview, info: zipfile.ZipInfo) -> memoryview:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise WeightsError(f"its entry {info.filename:.60} is compressed or encrypted, as PyTorch's never are")
    signature, name, extra = _LOCAL_HEADER.unpack_from(content, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != ZIP_MAGIC or start + info.file_size > len(content):
        raise WeightsError(f"its entry {info.filename:.60} is not where its directory says")
    data = content[start : start + info.file_size]
    if zlib.crc32(data) != info.CRC:
        raise WeightsError(f"its entry {info.filename:.60} has another checksum than its directory says: it is damaged")
    return data


class _Bounded(io.RawIOBase):
    """The file as zipfile reads its directory: never much at once, whatever length is declared."""

    def __init__(self, content: memoryview):
        self._content, self._position = content, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._content)}[whence]
        if self._position < 0:
            raise ValueError("its directory lies before its beginning")
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._content) if size is None or size < 0 else self._position + size
        data = self._content[self._position : stop]
        if len(data) > _MAX_DIRECTORY:
            raise WeightsError(f"the zip file's directory is longer than {_MAX_DIRECTORY:,} bytes")
        self._position += len(data)
        return bytes(data)


# -- legacy


def _read_legacy(content: memoryview) -> tuple[Any, Data]:
    position = 0

    def next_pickle() -> tuple[Any, dict[str, Storage]]:
        nonlocal position
        stream = io.BytesIO(content[position : position + pickles.MAX_BYTES])
        loaded = pickles.load(stream)
        position += stream.tell()
        return loaded

    if next_pickle()[0] != LEGACY_MAGIC:
        raise WeightsError("it is a pickle, but not one of torch.save's")
    if next_pickle()[0] != LEGACY_VERSION:
        raise WeightsError(f"its format is not version {LEGACY_VERSION}, the only one there is")
    if not next_pickle()[0]["little_endian"]:
        raise WeightsError("its numbers are big-endian, which is not supported")
    saved, storages = next_pickle()
    keys, _ = next_pickle()
    data = {}
    for key in keys:
        if type(key) is not str or key not in storages:
            raise WeightsError("its storages are others than its pickle mentions")
        storage = storages[key]
        (numel,) = struct.unpack_from("<q", content, position)
        start, position = position + 8, position + 8 + numel * storage.dtype.itemsize
        if numel < 0 or position > len(content):
            raise WeightsError(f"its storage {key:.20} of {numel:,} numbers ends behind the file's end")
        data[key] = _checked(content[start:position], storage)
    return saved, data


def _checked(data: memoryview, storage: Storage) -> memoryview:
    if len(data) != storage.numel * storage.dtype.itemsize:
        raise WeightsError(
            f"its storage {storage.key:.20} has {len(data):,} bytes where {storage.numel:,} numbers are declared"
        )
    return data


# -- writing


def write_torch_file(file: BinaryIO, state_dict: Mapping[str, np.ndarray]) -> None:
    """Write what `torch.load(..., weights_only=True)` reads as a dictionary of tensors.

    Args:
        file: open for writing.
        state_dict: key -> array, of a type that PyTorch has.

    Raises:
        WeightsError: for an array of another type.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "data.pkl", _pickle(state_dict))
        _write(archive, "byteorder", b"little")
        for index, array in enumerate(state_dict.values()):
            _write(archive, f"data/{index}", array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        _write(archive, "version", b"3\n")


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")
    # Aligned as PyTorch aligns it, by an extra field of zeros, so that the numbers can be used where they stand.
    start = archive.start_dir + _LOCAL_HEADER.size + len(info.filename) + 4
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    archive.writestr(info, data)


def _pickle(state_dict: Mapping[str, np.ndarray]) -> bytes:
    """The pickle's instructions, written out: Python's pickler would need PyTorch to name its functions."""
    instructions = [b"\x80\x02}("]
    for index, (key, array) in enumerate(state_dict.items()):
        if array.dtype not in STORAGE_NAMES:
            raise WeightsError(f"{key} has numbers of type {array.dtype}, which PyTorch has not")
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        instructions += [
            _text(key),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + _text("storage") + b"ctorch\n" + STORAGE_NAMES[array.dtype].encode() + b"\n",
            _text(str(index)) + _text("cpu") + _integer(array.size) + b"tQ",
            _integer(0) + _integers(array.shape) + _integers(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    return b"".join([*instructions, b"u."])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)  # LONG1, of 8 bytes


def _integers(numbers: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"
