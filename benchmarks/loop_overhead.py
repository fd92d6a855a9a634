"""What the training loop costs over the bare compiled step, on the same batches.

    python benchmarks/loop_overhead.py --config configs/efficientnet_b0.py

Both make the same steps from the same state on the same ready-made batches, in turns, in one process. The bare steps
find their batches on the device; the loop puts them there, reads the metrics and writes every record to the terminal
(discarded), to `metrics.jsonl` and to TensorBoard. Neither loads data, evaluates or saves.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn import data
from flaxcnn.build import Experiment, build, build_devices, initial_state
from flaxcnn.cli.command_line import load_config
from flaxcnn.config import Config
from flaxcnn.train import TrainState, make_train_step
from flaxcnn.train.checkpoint import Checkpoints
from flaxcnn.train.loop import Schedule, train
from flaxcnn.train.parallel import DataParallel
from flaxcnn.train.writers import Console, JsonLines, TensorBoard, Writer


def main() -> None:
    """Print the median of the ratios of neighbouring runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/efficientnet_b0.py"))
    parser.add_argument("--steps", type=int, default=30, help="a run")
    parser.add_argument("--rounds", type=int, default=15, help="of a bare run and a loop")
    options = parser.parse_args()
    config = load_config(options.config)
    experiment, devices = build(config), build_devices(config)
    batches = ready_made(config, experiment, options.steps)
    start = devices.put_state(initial_state(config, experiment))
    step = devices.jit_step(make_train_step(experiment.model, experiment.optimizer, loss=experiment.loss), start)
    step = step.lower(start, devices.put_batch(batches[0])).compile()

    on_device = [devices.put_batch(batch) for batch in batches]
    bare_seconds, loop_seconds = [], []
    with tempfile.TemporaryDirectory() as folder, open_writers(Path(folder), options.steps) as writers:
        for number in range(options.rounds + 1):
            runs: list[tuple[list[float], Callable[[TrainState], TrainState]]] = [
                (bare_seconds, lambda state: bare(step, state, on_device)),
                (loop_seconds, lambda state: loop(step, state, batches, experiment, devices, writers)),
            ]
            for seconds, run in runs if number % 2 else reversed(runs):
                seconds.append(timed(run, start))
    # The first round warms up.
    ratios = [loop / bare for loop, bare in zip(loop_seconds[1:], bare_seconds[1:], strict=True)]
    print(
        f"{config.model.name}, batches of {config.data.batch_size}: "
        f"{1000 * statistics.median(bare_seconds[1:]) / options.steps:.1f} ms a bare step; the loop takes "
        f"{statistics.median(ratios):.3f} times that "
        f"(median of {options.rounds}, {min(ratios):.3f} to {max(ratios):.3f})"
    )


def ready_made(config: Config, experiment: Experiment, steps: int) -> list[dict[str, np.ndarray]]:
    """The first batches of the run."""
    loader = data.train_batches(
        experiment.train_source,
        experiment.train_transform,
        batch_size=config.data.batch_size,
        seed=config.train.seed,
    )
    batches = list(itertools.islice(loader, steps))
    loader.close()
    return batches


def timed(run: Callable[[TrainState], TrainState], start: TrainState) -> float:
    """Seconds of a run from a copy of a state."""
    state = jax.block_until_ready(jax.tree.map(jnp.copy, start))
    began = time.perf_counter()
    jax.block_until_ready(run(state))
    return time.perf_counter() - began


def bare(step: Callable[..., Any], state: TrainState, batches: Sequence[Any]) -> TrainState:
    """Nothing but the step."""
    for batch in batches:
        state, _ = step(state, batch)
    return state


@contextmanager
def open_writers(folder: Path, steps: int) -> Iterator[list[Writer]]:
    """The writers of a run, its terminal discarded."""
    writers = [
        Console(steps, steps, file=io.StringIO(), line_seconds=0),
        JsonLines(folder / "metrics.jsonl", resume_step=0),
        TensorBoard(folder / "tensorboard", resume_step=0),
    ]
    yield writers
    for writer in writers:
        writer.close()


def loop(
    step: Callable[..., Any],
    state: TrainState,
    batches: Sequence[Mapping[str, np.ndarray]],
    experiment: Experiment,
    devices: DataParallel,
    writers: Sequence[Writer],
) -> TrainState:
    """The training loop as the command runs it."""
    return train(
        step,
        state,
        ReadyMade(batches),
        schedule=Schedule(
            total=len(batches),
            steps_per_epoch=len(batches),
            log_every=experiment.schedule.log_every,
            eval_every=0,
        ),
        put_batch=devices.put_batch,
        evaluate=lambda state: None,
        checkpoints=NoCheckpoints(),
        writers=writers,
        learning_rate=experiment.learning_rate,
    )


class ReadyMade:
    """Batches that were made before."""

    def __init__(self, batches: Sequence[Mapping[str, np.ndarray]]):
        self._batches = iter(batches)

    def __next__(self) -> Mapping[str, np.ndarray]:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """Needed for no checkpoint."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Needed for no checkpoint."""


class NoCheckpoints(Checkpoints):
    """Saves nothing."""

    def __init__(self) -> None:
        pass

    def save(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""


if __name__ == "__main__":
    main()
