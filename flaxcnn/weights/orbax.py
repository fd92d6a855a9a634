"""Orbax checkpoints: a run's, or variables alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from flaxcnn.errors import first_line
from flaxcnn.weights.errors import WeightsError

COLLECTIONS = ("params", "batch_stats")
# Orbax compresses, and trained weights hardly: what becomes far more than its files is no network, but a bomb.
_HARMLESS = 64 * 2**20  # bytes
_MOST_COMPRESSED = 100  # times


def read_orbax(path: Path) -> tuple[dict[str, Any], Path]:
    """Read parameters and statistics, and nothing else.

    Args:
        path: a folder of variables, a run's folder, its `checkpoints`, or one of these. Of several checkpoints it is
            the one that evaluated best, or the newest where none was evaluated.

    Returns:
        `{"params": ..., "batch_stats": ...}` of numpy arrays, and the folder they came from.

    Raises:
        WeightsError: when there is no checkpoint, or a broken one.
    """
    folder = _checkpoint(path)
    # Orbax reports each array of a failed read by itself.
    logging.getLogger("absl").setLevel(logging.ERROR)
    handler = ocp.PyTreeCheckpointHandler()
    try:
        saved: Any = handler.metadata(epath.Path(folder)).tree
        wanted = {name: _like(saved[name]) for name in COLLECTIONS if saved.get(name)}
        _check_size(wanted, folder)
        # As numpy arrays, whatever devices they were on.
        args = ocp.args.PyTreeRestore(
            wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        return ocp.Checkpointer(handler).restore(folder, args=args), folder
    except WeightsError:
        raise
    except Exception as error:  # Orbax raises plain Exceptions too
        raise WeightsError(f"cannot read checkpoint {folder}: {first_line(error)}") from error


def write_orbax(path: Path, variables: Mapping[str, Any]) -> None:
    """Write variables to a new folder, which is whole or not there at all.

    Raises:
        WeightsError: when there is something at that path, or it cannot be written.
    """
    if path.exists():
        raise WeightsError(f"{path} exists; name a folder that does not")
    try:  # Orbax's threads do not end when it cannot write.
        path.mkdir(parents=True)
        path.rmdir()
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}") from error
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), dict(variables))


def _checkpoint(path: Path) -> Path:
    path = path.absolute()
    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [folder for folder in path.iterdir() if folder.name.isdigit() and (folder / "state").is_dir()]
    if steps:
        path = max(steps, key=lambda folder: (_top1(folder), int(folder.name)))
    path = path / "state" if (path / "state").is_dir() else path
    if not (path / "_METADATA").is_file():
        raise WeightsError(f"{path} is a folder without an Orbax checkpoint")
    return path


def _top1(step: Path) -> float:
    metrics = step / "metrics" / "metrics"
    try:
        return float(json.loads(metrics.read_text())["top1"]) if metrics.is_file() else -1.0
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"cannot read checkpoint {step}: its {metrics.name} are damaged") from error


def _check_size(wanted: Any, folder: Path) -> None:
    declared = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if declared > _HARMLESS and declared > _MOST_COMPRESSED * stored:
        raise WeightsError(f"checkpoint {folder} declares {declared:,} bytes of numbers in files of {stored:,}")


def _like(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _like(value) for name, value in tree.items()}
    return np.broadcast_to(np.zeros((), tree.dtype), tree.shape)  # of any shape in no memory
