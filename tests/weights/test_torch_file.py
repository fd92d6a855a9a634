"""PyTorch's files, read and written, against PyTorch itself."""

from __future__ import annotations

import io
import struct
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flaxcnn.weights import WeightsError, read_weights
from flaxcnn.weights.torch_file import write_torch_file

torch = pytest.importorskip("torch", reason="PyTorch's own reader and writer are the reference")

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
both_formats = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


def save(value: Any, path: Path, zip_format: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zip_format)
    return path


def assert_same(read: dict[str, np.ndarray], saved: dict[str, Any]) -> None:
    assert list(read) == list(saved)
    for key, tensor in saved.items():
        assert read[key].shape == tuple(tensor.shape)
        assert str(read[key].dtype) == str(tensor.dtype).removeprefix("torch.")
        # As bytes: a bit for a bit, and PyTorch makes no numpy array of bfloat16.
        assert read[key].tobytes() == bytes(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())


@both_formats
def test_reads_every_dtype(tmp_path: Path, zip_format: bool) -> None:
    saved = {name: (torch.randn(3, 5) * 50).to(getattr(torch, name)) for name in DTYPES}
    assert_same(read_weights(save(saved, tmp_path / "a.pt", zip_format)).state_dict, saved)


@both_formats
def test_reads_views_scalars_parameters_and_shared_storages(tmp_path: Path, zip_format: bool) -> None:
    base = torch.randn(6, 8)
    saved = OrderedDict(
        base=base,
        transposed=base.T,
        part=base[1:4, ::3],
        scalar=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.randn(2, 3)),
        channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    )
    saved._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as state_dict() has it
    assert_same(read_weights(save(saved, tmp_path / "a.pt", zip_format)).state_dict, saved)


@both_formats
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_what_trainers_write(tmp_path: Path, zip_format: bool, protocol: int) -> None:
    module = torch.nn.Linear(3, 2)
    average = torch.optim.swa_utils.AveragedModel(module)
    optimizer = torch.optim.Adam(module.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])  # whose milestones are a Counter
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": {f"module.{key}": value for key, value in module.state_dict().items()},
        "model_ema": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "args": Namespace(lr=0.1, layers=[1, 2], sizes=(3, 4), name=None, device=torch.device("cuda")),
        "shape": torch.Size([2, 3]),
        "epoch": 3,
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_format)

    trained = read_weights(path)
    assert_same(trained.state_dict, module.state_dict())
    assert trained.notes == ("PyTorch", "entry 'model'", "removed the prefix 'module.'")
    averaged = read_weights(path, entry="model_ema")
    assert_same(averaged.state_dict, average.module.state_dict())
    assert "left out n_averaged" in averaged.notes
    with pytest.raises(
        WeightsError, match=r"no entry 'ema'; its dictionaries: model, model_ema, optimizer, lr_scheduler"
    ):
        read_weights(path, entry="ema")


def test_reads_parameters_as_the_first_versions_wrote_them(tmp_path: Path) -> None:
    """`Parameter` made empty and filled in later, over `_rebuild_tensor`."""

    def pickle(key: bytes) -> bytes:
        storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06NtQ"
        tensor = b"ctorch._utils\n_rebuild_tensor\n" + storage + b"K\x00(K\x02K\x03t(K\x03K\x01ttR"
        state = b"(" + tensor + b"NN\x89ccollections\nOrderedDict\n)Rt"
        key = b"X" + struct.pack("<I", len(key)) + key
        return b"\x80\x02}" + key + b"ctorch.nn.parameter\nParameter\n)\x81" + state + b"bs."

    legacy = io.BytesIO()
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    start = legacy.getvalue()[: legacy.getvalue().rindex(b"\x80\x02]")]
    start = start[: start.rindex(b"\x80\x02}")]
    numbers = np.arange(6, dtype=np.float32)
    keys = b"\x80\x02]X\x01\x00\x00\x000a."
    path = tmp_path / "old.pth"
    path.write_bytes(start + pickle(b"weight") + keys + struct.pack("<q", 6) + numbers.tobytes())

    np.testing.assert_array_equal(read_weights(path).state_dict["weight"], numbers.reshape(2, 3))


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_what_is_written(tmp_path: Path, mapped: bool) -> None:
    tensors = {name: (torch.randn(3, 5) * 50).to(getattr(torch, name)) for name in DTYPES}
    tensors["scalar"] = torch.tensor(2.5)
    written = read_weights(save(tensors, tmp_path / "theirs.pt")).state_dict
    path = tmp_path / "ours.pt"
    with path.open("wb") as file:
        write_torch_file(file, written)

    loaded = torch.load(path, weights_only=True, mmap=mapped)
    assert list(loaded) == list(tensors)
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)
        assert loaded[key].data_ptr() % 64 == 0
    assert_same(read_weights(path).state_dict, tensors)


def test_does_not_write_what_torch_has_not(tmp_path: Path) -> None:
    with (tmp_path / "a.pt").open("wb") as file, pytest.raises(WeightsError, match="weight has numbers of type"):
        write_torch_file(file, {"weight": np.zeros(3, np.complex64)})
