"""Damaged and hostile files: each refused by one line, none executed, in bounded memory.

None of these tests needs PyTorch: the files are written here.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from flaxcnn.weights import WeightsError, read_weights
from flaxcnn.weights.pickles import MAX_INSTRUCTIONS
from flaxcnn.weights.torch_file import _pickle, write_torch_file

MEMORY = 64 * 2**20  # bytes, the most that reading any of them may take

STATE_DICT = {
    "conv.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    "conv.bias": np.array([1.5, -2.0], np.float32),
    "counts": np.arange(5),
}


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def refuse(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with bounded_memory(), pytest.raises(WeightsError) as refusal:
        read_weights(path)
    message = str(refusal.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300


def zip_file(
    pickle: bytes | None = None, *, compression: int = zipfile.ZIP_STORED, leave_out: str = "", **entries: bytes
) -> bytes:
    """A file in PyTorch's zip format with right checksums, whatever it holds."""
    content = {"data.pkl": _pickle(STATE_DICT) if pickle is None else pickle, "byteorder": b"little"}
    content |= {f"data/{index}": array.tobytes() for index, array in enumerate(STATE_DICT.values())}
    content |= {name.replace("__", "/"): data for name, data in entries.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            if name != leave_out:
                archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def legacy_file(
    pickle: bytes | None = None, *, magic: int = 0x1950A86A20F9469CFC6C, version: int = 1001, numel: int | None = None
) -> bytes:
    """A file in PyTorch's legacy format."""
    arrays = list(STATE_DICT.values())[: None if pickle is None else 1]  # pickles made here mention the first alone
    storages = b"".join(struct.pack("<q", array.size if numel is None else numel) + array.tobytes() for array in arrays)
    return b"".join(
        [
            b"\x80\x02\x8a\x0a" + magic.to_bytes(10, "little") + b".",
            b"\x80\x02M" + struct.pack("<H", version) + b".",
            b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.",
            _pickle(STATE_DICT) if pickle is None else pickle,
            b"\x80\x02](" + b"".join(b"X\x01\x00\x00\x00%d" % index for index in range(len(arrays))) + b"e.",
            storages,
        ]
    )


def safetensors_file(header: dict | None = None, *, length: int | None = None, data: bytes = bytes(24)) -> bytes:
    text = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}} if header is None else header)
    return struct.pack("<Q", len(text) if length is None else length) + text.encode() + data


def integer(number: int) -> bytes:
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def tensor_pickle(
    *, offset: int = 0, shape: tuple = (2, 3), stride: tuple = (3, 1), numel: int = 54, key: bytes = b"0"
) -> bytes:
    """A dictionary of one tensor, described as given."""
    numbers = [b"(" + b"".join(map(integer, axes)) + b"t" for axes in (shape, stride)]
    storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key
    storage += b"X\x03\x00\x00\x00cpu" + integer(numel) + b"tQ"
    return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n" + (
        storage + integer(offset) + numbers[0] + numbers[1] + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def call(module: str, name: str, *, protocol: int = 2) -> bytes:
    """A pickle that calls a function with the name of a file for it to make."""
    argument = b"X\x08\x00\x00\x00executed\x85R."
    if protocol == 2:
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + words + b"\x93" + argument


def nested_shape(depth: int) -> bytes:
    """A tensor whose shape is a list of lists that doubles with every level."""
    doubling = b"](q\x00h\x00e" + b"".join(b"q\x01](h\x01h\x01e" for _ in range(depth))
    return tensor_pickle().replace(b"(" + integer(2) + integer(3) + b"t", doubling, 1)


EXECUTING = {
    f"{module}.{name}-{protocol}": call(module, name, protocol=protocol)
    for module, name in (
        *(("posix", "system"), ("os", "mkdir"), ("builtins", "eval"), ("builtins", "open"), ("subprocess", "Popen")),
        *(("pathlib", "Path.touch"), ("torch", "load"), ("torch.hub", "load"), ("__builtin__", "exec")),
        *(("collections", "OrderedDict.fromkeys"), ("torch._utils", "__builtins__"), ("numpy", "load")),
    )
    for protocol in (2, 4)
}
PICKLES = {
    **EXECUTING,
    "INST": b"\x80\x02(X\x08\x00\x00\x00executediposix\nmkdir\n.",
    "OBJ": b"\x80\x02(cposix\nmkdir\nX\x08\x00\x00\x00executedo.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"\x80\x02Pmodule\n.",
    "calls a string": b"\x80\x02X\x0b\x00\x00\x00posix mkdirX\x08\x00\x00\x00executed\x85R.",
    "calls a storage class": b"\x80\x02ctorch\nFloatStorage\n)RX\x01\x00\x00\x00aK\x01s.",
    "sets attributes of a class": b"\x80\x02ccollections\nOrderedDict\nN}X\x04\x00\x00\x00keysK\x01s\x86b.",
    "memo of 4 billion places": b"\x80\x02}r\xff\xff\xff\xff" + b"h\x07s.",
    "string of 16 EiB": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f" + b"a.",
    "bytes of 2 GiB": b"\x80\x02T\xff\xff\xff\x7fa.",
    "bytearray of 8 EiB": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fa.",
    "long of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7fa.",
    "too many instructions": b"\x80\x02" + b"}" * (MAX_INSTRUCTIONS + 1) + b".",
    "too many marks": b"\x80\x02" + b"(" * (MAX_INSTRUCTIONS + 1) + b".",
    "too long": b"\x80\x02" + b"N0" * 5_000_000 + b".",
    "key nested too deep to hash": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "value nested deep": b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",
    "shape doubled 60 times": nested_shape(60),
    "holds itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "empty": b"",
    "stops at once": b"\x80\x02.",
    "pops from nothing": b"\x80\x02s.",
    "mark that is not there": b"\x80\x02}u.",
    "odd number of items": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "memo that is not there": b"\x80\x02h\x07.",
    "no dictionary": b"\x80\x02K\x07.",
    "empty dictionary": b"\x80\x02}.",
    "dictionary of numbers": b"\x80\x02}X\x01\x00\x00\x00aK\x07s.",
    "unknown instruction": b"\x80\x02\xff.",
    "text": b"\x80\x02hello",
    "no storage": tensor_pickle().replace(b"storage", b"torages"),
    "storage of another class": tensor_pickle().replace(b"FloatStorage", b"QInt8Storage"),
    "offset past the end": tensor_pickle(offset=49),
    "offset far past the end": tensor_pickle(offset=2**62),
    "negative offset": tensor_pickle(offset=-1),
    "shape past the end": tensor_pickle(shape=(9, 7), stride=(7, 1)),
    "shape overflowing 64 bits": tensor_pickle(shape=(2**32, 2**32), stride=(1, 1)),
    "negative shape": tensor_pickle(shape=(-2, 3)),
    "strides past the end": tensor_pickle(stride=(54, 1)),
    "negative stride": tensor_pickle(stride=(-3, 1), offset=3),
    "stride 0 that multiplies": tensor_pickle(shape=(54, 54), stride=(0, 1)),
    "shape and strides unlike": tensor_pickle(stride=(1,)),
    "a hundred dimensions": tensor_pickle(shape=(1,) * 100, stride=(1,) * 100),
    "storage declared larger": tensor_pickle(numel=55),
    "storage declared huge": tensor_pickle(numel=2**60),
    "storage declared negative": tensor_pickle(numel=-1),
    "storage declared smaller": tensor_pickle(numel=53),
    "storage that is not there": tensor_pickle(key=b"17"),
    "storage elsewhere": tensor_pickle(key=b"../../etc/passwd"),
}


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


def test_the_files_are_whole_before_they_are_damaged(tmp_path: Path) -> None:
    for content in (zip_file(), legacy_file()):
        (tmp_path / "whole").write_bytes(content)
        read = read_weights(tmp_path / "whole").state_dict
        assert read.keys() == STATE_DICT.keys()
        for key, array in STATE_DICT.items():
            np.testing.assert_array_equal(read[key], array)
    for content in (zip_file(tensor_pickle()), legacy_file(tensor_pickle())):
        (tmp_path / "whole").write_bytes(content)
        np.testing.assert_array_equal(read_weights(tmp_path / "whole").state_dict["w"], np.arange(6).reshape(2, 3))
    (tmp_path / "whole").write_bytes(safetensors_file())
    np.testing.assert_array_equal(read_weights(tmp_path / "whole").state_dict["w"], np.zeros((2, 3)))


@pytest.mark.parametrize("pickle", PICKLES.values(), ids=PICKLES.keys())
def test_refuses_hostile_pickles_in_both_formats(tmp_path: Path, pickle: bytes) -> None:
    refuse(zip_file(pickle), tmp_path / "hostile.pth")
    refuse(legacy_file(pickle), tmp_path / "legacy.pth")


@pytest.mark.parametrize("name", EXECUTING)
def test_refuses_bare_pickles_and_names_what_they_ask_for(tmp_path: Path, name: str) -> None:
    refuse(EXECUTING[name], tmp_path / "bare.pkl")
    with pytest.raises(WeightsError, match=name.split("-")[0]):
        read_weights(tmp_path / "bare.pkl")


def bomb() -> bytes:
    return zip_file(compression=zipfile.ZIP_DEFLATED, data__0=bytes(2**28))


def directory_of_many() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(70_000):
            archive.writestr(f"archive/data/{index}", b"")
    return file.getvalue()


def encrypted() -> bytes:
    content = bytearray(zip_file())
    directory = content.rindex(b"PK\x01\x02", 0, content.index(b"PK\x01\x02") + 4)
    content[directory + 8] |= 1
    return bytes(content)


def declared_huge(position: int) -> Callable[[], bytes]:
    """A length or an offset in the directory's first entry, raised to 4 GiB."""

    def make() -> bytes:
        content = bytearray(zip_file())
        directory = content.index(b"PK\x01\x02")
        content[directory + position : directory + position + 4] = b"\xfe\xff\xff\xff"
        return bytes(content)

    return make


FILES: dict[str, Callable[[], bytes]] = {
    "zip bomb": bomb,
    "directory of many entries": directory_of_many,
    "encrypted entry": encrypted,
    "compressed length": declared_huge(20),
    "length": declared_huge(24),
    "offset of an entry": declared_huge(42),
    "no pickle": lambda: zip_file(leave_out="data.pkl"),
    "no numbers": lambda: zip_file(leave_out="data/1"),
    "numbers cut": lambda: zip_file(data__0=STATE_DICT["conv.weight"].tobytes()[:-1]),
    "numbers too many": lambda: zip_file(data__0=bytes(999)),
    "big-endian": lambda: zip_file(byteorder=b"big"),
    "zip of something else": lambda: zip_file(leave_out="data.pkl", readme=b"hello"),
    "legacy: another magic number": lambda: legacy_file(magic=1),
    "legacy: another version": lambda: legacy_file(version=1002),
    "legacy: numbers declared huge": lambda: legacy_file(numel=2**62),
    "legacy: numbers declared negative": lambda: legacy_file(numel=-5),
    "legacy: storages not mentioned": lambda: legacy_file()[:-8].replace(
        b"X\x01\x00\x00\x002e.", b"X\x01\x00\x00\x009e."
    ),
    "legacy: numbers declared fewer": lambda: legacy_file(numel=1),
    "safetensors: header of 8 EiB": lambda: safetensors_file(length=2**63 - 1),
    "safetensors: header of 100 MB": lambda: safetensors_file(length=100_000_000),
    "safetensors: header longer than the file": lambda: safetensors_file(length=200),
    "safetensors: no JSON": lambda: safetensors_file(length=20),
    "safetensors: numbers past the end": lambda: safetensors_file(data=bytes(20)),
    "safetensors: numbers left over": lambda: safetensors_file(data=bytes(30)),
    "safetensors: shape overflowing": lambda: safetensors_file(
        {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 24]}}
    ),
    "safetensors: unknown type": lambda: safetensors_file(
        {"w": {"dtype": "F7", "shape": [2, 3], "data_offsets": [0, 24]}}
    ),
    "safetensors: overlapping": lambda: safetensors_file(
        {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} for name in "vw"}
    ),
    "nothing": lambda: b"",
    "text": lambda: b"not weights at all\n",
    "web page": lambda: b"<!DOCTYPE html><title>404</title>",
    "tar": lambda: b"storages" + bytes(92) + b"0000644\x00" + bytes(412),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
def test_refuses_hostile_files(tmp_path: Path, make: Callable[[], bytes]) -> None:
    refuse(make(), tmp_path / "hostile.pth")


@pytest.mark.parametrize("make", [zip_file, legacy_file, safetensors_file])
def test_refuses_every_truncation(tmp_path: Path, make: Callable[[], bytes]) -> None:
    whole = make()
    for length in sorted(random.Random(0).sample(range(len(whole)), 40)):
        refuse(whole[:length], tmp_path / "truncated.pth")


def test_refuses_any_flipped_bit_of_a_zip_entry(tmp_path: Path) -> None:
    file = io.BytesIO()
    write_torch_file(file, STATE_DICT)
    whole = file.getvalue()
    rng = random.Random(1)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = [info for info in archive.infolist() if info.filename != "archive/version"]
    for _ in range(60):
        entry = rng.choice(entries)
        damaged = bytearray(whole)
        header = entry.header_offset
        start = header + 30 + sum(struct.unpack_from("<HH", whole, header + 26))
        damaged[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
        refuse(bytes(damaged), tmp_path / "flipped.pth")


@pytest.mark.parametrize("make", [zip_file, legacy_file, safetensors_file])
def test_random_damage_is_refused_or_changes_nothing_but_values(tmp_path: Path, make: Callable[..., bytes]) -> None:
    """Where nothing is checked by a checksum, such as a key's letters, damage may go unseen but does no harm."""
    rng = random.Random(2)
    path = tmp_path / "damaged.pth"
    refused = 0
    for _ in range(150):
        damaged = bytearray(make())
        if make is zip_file:  # a damaged pickle under a right checksum
            pickle = bytearray(_pickle(STATE_DICT))
            pickle[rng.randrange(len(pickle))] = rng.randrange(256)
            damaged = bytearray(zip_file(bytes(pickle)))
        else:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with bounded_memory():
            try:
                read = read_weights(path).state_dict
            except WeightsError as error:
                refused += 1
                assert "\n" not in str(error)
            else:
                assert sum(array.nbytes for array in read.values()) <= len(damaged)
    assert refused > 50


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no file .*absent\.pth"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="without an Orbax checkpoint"):
        read_weights(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
