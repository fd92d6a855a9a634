"""Weights from files and to files: PyTorch's, safetensors, Orbax checkpoints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from flaxcnn.models import Classifier
from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.pickles import Tensor
from flaxcnn.weights.torch import Head, Variables, from_torch, to_torch, torch_layout
from flaxcnn.weights.torch_file import ZIP_MAGIC, read_torch_file, write_torch_file
from flaxcnn.weights.wrapped import unwrap

_PICKLE_MAGIC = b"\x80"
_MAX_HEADER = 4 * 2**20
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")


class WeightsFile(NamedTuple):
    """What stood in a file."""

    state_dict: dict[str, np.ndarray]
    """PyTorch's keys and layouts."""
    notes: tuple[str, ...]
    """How it was found: the format, the entry, what was left out."""


def load_weights(
    model: Classifier,
    path: str | os.PathLike[str],
    *,
    entry: str | None = None,
    head: Head = "load",
    channels: int = 3,
) -> Variables:
    """Read a model's variables from a file. PyTorch is not needed, and nothing in the file is executed.

    Args:
        model: from `create_model`.
        path: PyTorch's (.pth, .pt), safetensors, or an Orbax checkpoint, such as a run's folder.
        entry: of a PyTorch checkpoint with several, such as "model_ema"; by default the trained weights themselves.
        head: "load", or "new" to initialise the classifier afresh, for other classes.
        channels: of the images the weights are for.

    Returns:
        `{"params": ..., "batch_stats": ...}`.

    Raises:
        WeightsError: when the file is missing, damaged or hostile, or does not fit the model: then every missing,
            unexpected and mis-shaped key is listed.
    """
    return from_torch(model, read_weights(path, entry=entry).state_dict, head=head, channels=channels)


def save_weights(
    model: Classifier, variables: Mapping[str, Any], path: str | os.PathLike[str], *, channels: int = 3
) -> None:
    """Write a model's variables to a file, which is whole or not there at all.

    Args:
        model: whose variables they are.
        variables: `{"params": ..., "batch_stats": ...}`.
        path: ends in .pth or .pt for PyTorch, in .safetensors, or in nothing for a folder in Orbax's format. A file
            is overwritten, a folder is not.
        channels: of the images the weights are for.

    Raises:
        WeightsError: when the variables are not the model's, the path's ending is another, or it cannot be written.
    """
    path = Path(path)
    state_dict = to_torch(model, variables, channels=channels)
    if path.suffix in _TORCH_SUFFIXES:
        _write_atomically(path, lambda file: write_torch_file(file, state_dict))
    elif path.suffix == ".safetensors":
        _write_atomically(path, lambda file: _write_safetensors(file, state_dict))
    elif not path.suffix:
        from flaxcnn.weights.orbax import COLLECTIONS, write_orbax

        write_orbax(path, {name: variables[name] for name in COLLECTIONS if variables.get(name)})
    else:
        raise WeightsError(f"{path} ends neither in .pth or .pt (PyTorch) nor in .safetensors nor in nothing (Orbax)")


def read_weights(path: str | os.PathLike[str], *, entry: str | None = None) -> WeightsFile:
    """Read a state dict from a file of any kind, told by its content.

    Args:
        path: PyTorch's, safetensors, or an Orbax checkpoint.
        entry: of a PyTorch checkpoint with several.

    Returns:
        Arrays by PyTorch's keys; those of a PyTorch file are views of it.

    Raises:
        WeightsError: when the file is missing, damaged or hostile.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"there is no file {path}")
    if path.is_dir():
        return _read_orbax(path)
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start.startswith((ZIP_MAGIC, _PICKLE_MAGIC)):
            return _read_torch(path, entry)
        if start[8:] == b"{":
            return _read_safetensors(path)
    except WeightsError as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    raise WeightsError(f"{path} is neither a PyTorch file nor safetensors")


def _read_torch(path: Path, entry: str | None) -> WeightsFile:
    saved, array = read_torch_file(path)
    tensors, notes = unwrap(saved, entry)
    if not tensors:
        raise WeightsError("it holds no tensors")
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"its {key:.60} is of type {type(tensor).__name__}, not a tensor")
    return WeightsFile({key: array(tensor) for key, tensor in tensors.items()}, ("PyTorch", *notes))


def _read_safetensors(path: Path) -> WeightsFile:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _MAX_HEADER:
            raise WeightsError(f"its header is longer than {_MAX_HEADER:,} bytes")
    try:
        with safe_open(path, "numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dictionary
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"it is damaged or not a safetensors file ({error!s:.100})") from error
    tensors, notes = unwrap(tensors)
    return WeightsFile(tensors, ("safetensors", *notes))


def _write_safetensors(file: BinaryIO, state_dict: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    file.write(save({key: np.ascontiguousarray(array) for key, array in state_dict.items()}, {"format": "pt"}))


def _read_orbax(path: Path) -> WeightsFile:
    from flaxcnn.weights.orbax import read_orbax

    variables, folder = read_orbax(path)
    return WeightsFile(torch_layout(jax.device_get(variables)), ("Orbax", f"checkpoint {folder}"))


def _write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
