"""A run's checkpoints, written by the training's own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import create_model, load_weights
from flaxcnn.models import abstract_variables
from flaxcnn.train.checkpoint import Checkpoints
from flaxcnn.weights import WeightsError
from flaxcnn.weights.orbax import write_orbax

MODEL = create_model("lenet", num_classes=10)


def variables(step: int) -> Any:
    return jax.tree.map(lambda a: np.full(a.shape, step, a.dtype), abstract_variables(MODEL))


def run(folder: Path, top1: dict[int, float | None]) -> Path:
    """A run's folder with checkpoints whose numbers are their steps."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=len(top1))
    for step, accuracy in top1.items():
        state = {
            "params": variables(step)["params"],
            "batch_stats": {},
            "step": np.int32(step),
            "opt_state": [np.ones(3)],
        }
        checkpoints.save(step, state, {}, metrics=None if accuracy is None else {"top1": accuracy})
    checkpoints.close()
    return folder


def loaded_step(path: Path) -> int:
    numbers = {float(number) for leaf in jax.tree.leaves(load_weights(MODEL, path)) for number in np.unique(leaf)}
    assert len(numbers) == 1
    return int(numbers.pop())


@pytest.mark.parametrize(
    "top1",
    [{5: 0.5, 10: 0.7, 15: 0.6}, {5: 0.5, 10: 0.5}, {5: None, 10: None}, {5: 0.5, 10: None}],
    ids=["best", "tied", "never evaluated", "not evaluated yet"],
)
def test_takes_the_checkpoint_that_evaluate_takes(tmp_path: Path, top1: dict[int, float | None]) -> None:
    folder = run(tmp_path / "run", top1)
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    best = checkpoints.best()
    expected = checkpoints.latest() if best is None else best
    assert loaded_step(folder) == loaded_step(folder / "checkpoints") == expected
    assert loaded_step(folder / "checkpoints" / "5") == 5


def test_a_broken_checkpoint_is_refused_by_one_line(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", {5: None})
    (folder / "checkpoints" / "5" / "state" / "_METADATA").write_text("{")
    with pytest.raises(WeightsError, match=r"cannot read checkpoint .*run/checkpoints/5") as refusal:
        load_weights(MODEL, folder)
    assert "\n" not in str(refusal.value)
    folder = run(tmp_path / "other", {5: 0.5})
    (folder / "checkpoints" / "5" / "metrics" / "metrics").write_text('{"top')
    with pytest.raises(WeightsError, match=r"cannot read checkpoint .*other/checkpoints/5: its metrics are damaged"):
        load_weights(MODEL, folder)


def test_a_checkpoint_that_becomes_far_more_than_its_files_is_refused(tmp_path: Path) -> None:
    """Zeros, which compress to next to nothing."""
    bomb = {"params": {"conv1": {"kernel": np.zeros(2**26, np.float32)}}}  # 256 MiB
    write_orbax(tmp_path / "bomb", bomb)
    with pytest.raises(WeightsError, match=r"bomb declares 268,435,456 bytes of numbers in files of ") as refusal:
        load_weights(MODEL, tmp_path / "bomb")
    assert "\n" not in str(refusal.value)
