"""The training loop: steps, evaluations, checkpoints and records, and how a run stops and goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import jax
import numpy as np
from jax.typing import ArrayLike

from flaxcnn.errors import UserError
from flaxcnn.metrics import means
from flaxcnn.train.checkpoint import Checkpoints, quality_of
from flaxcnn.train.state import TrainState
from flaxcnn.train.step import Metrics
from flaxcnn.train.writers import Writer


class Batches(Protocol):
    """An endless iterator of training batches that knows its position."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next batch."""
        ...

    def get_state(self) -> dict[str, Any]:
        """The position, JSON-serialisable."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        ...


class Diverged(UserError):
    """The loss, a parameter or a statistic is not finite."""

    exit_status = 1


@dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; an interval of 0 means never."""

    total: int
    steps_per_epoch: int
    log_every: int
    eval_every: int
    save_every: int = 0

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate, and save, after a step; always after the last."""
        return step == self.total or (self.eval_every > 0 and step % self.eval_every == 0)

    def saves(self, step: int) -> bool:
        """Whether to save after a step for its own sake."""
        return self.save_every > 0 and step % self.save_every == 0 and not self.evaluates(step)

    def logs(self, step: int) -> bool:
        """Whether a record of training ends with a step."""
        return step % self.log_every == 0 or self.evaluates(step)

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that a step made belongs to."""
        return -(-step // self.steps_per_epoch)


class StopSignal:
    """Whether the run was asked to end by SIGTERM or Ctrl-C, and by which."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._interrupted = False

    def __call__(self) -> bool:
        """True once a signal came."""
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:  # A second Ctrl-C does not wait for the checkpoint.
            signal.default_int_handler(number, frame)
        self._interrupted = self._interrupted or number == signal.SIGINT
        self.received = self.received or number  # Schedulers send SIGTERM more than once.


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Turn SIGTERM and SIGINT into a request to stop after the current step, while inside."""
    stop = StopSignal()
    previous = {number: signal.signal(number, stop._handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class Progress:
    """Where a run is, beside its state: what a checkpoint must hold to go on as if nothing had happened."""

    evaluated: bool = False
    """Whether this step's evaluation is done."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums of the training metrics since the last record."""
    best: float | None = None
    """The quality of the best evaluation: see `quality_of`."""
    waited: int = 0
    """Evaluations since then."""


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a run whose evaluations get no better.

    Attributes:
        metric: watched.
        patience: evaluations without a better one that end the run; 0 for none.
    """

    metric: str = "top1"
    patience: int = 0

    def watch(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Take an evaluation into account."""
        quality = quality_of(metrics, self.metric)
        is_better = progress.best is None or quality > progress.best
        progress.best = quality if is_better else progress.best
        progress.waited = 0 if is_better else progress.waited + 1

    def ends(self, progress: Progress) -> bool:
        """Whether it is enough."""
        return 0 < self.patience <= progress.waited


def train(
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    state: TrainState,
    batches: Batches,
    *,
    schedule: Schedule,
    put_batch: Callable[[Mapping[str, np.ndarray]], Any],
    evaluate: Callable[[TrainState], dict[str, float] | None],
    checkpoints: Checkpoints,
    writers: Sequence[Writer],
    learning_rate: Callable[[int], ArrayLike],
    progress: Progress | None = None,
    early_stopping: EarlyStopping = EarlyStopping(),
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train from the state's step to `schedule.total`.

    Checkpoints are written after every evaluation, every `save_every` steps, and when asked to stop.

    Args:
        step: compiled; takes the state's memory.
        state: on the devices.
        batches: positioned at the state's step.
        schedule: when to log, evaluate, save and end.
        put_batch: to the devices.
        evaluate: state to metrics, or None when it was interrupted.
        checkpoints: where to save.
        writers: of the records.
        learning_rate: of a step, for the records.
        progress: of the checkpoint the state is from; brought to where the run ends.
        early_stopping: asked after each evaluation.
        stop: asked before each step; True saves and returns.

    Returns:
        The state at the end, or where it stopped.

    Raises:
        Diverged: when a step's loss, parameters or statistics are not finite. No checkpoint of it is written.
        CheckpointError: when a checkpoint cannot be written.
    """
    done = int(state.step)
    progress = progress or Progress()
    window = _Window(schedule, writers, learning_rate, progress.window)
    saved = done  # The step of the last checkpoint: there is none of step 0, and no need for one.

    def save(metrics: Mapping[str, float] | None, *, evaluated: bool) -> None:
        nonlocal saved
        window.read()  # A step that is not finite must not be saved.
        checkpoints.save(
            done,
            state,
            {
                "data": batches.get_state(),
                "window": window.sums,
                "evaluated": evaluated,
                "best": progress.best,
                "waited": progress.waited,
            },
            metrics=metrics,
        )
        saved = done

    evaluated = progress.evaluated
    while True:
        if done and not evaluated and schedule.evaluates(done):
            window.read()
            metrics = evaluate(state)
            if metrics is not None:
                evaluated = True
                early_stopping.watch(progress, metrics)
                record = {"step": done, "epoch": schedule.epoch(done), "split": "eval", **metrics}
                for writer in writers:
                    writer.write(record)
                save(metrics, evaluated=True)
            window.restart_clock()
        if done == schedule.total or early_stopping.ends(progress) or stop():
            break
        batch = put_batch(next(batches))
        state, metrics = step(state, batch)
        done += 1
        evaluated = False
        window.add(done, metrics)
        if schedule.saves(done):
            save(None, evaluated=False)
    if saved != done:
        save(None, evaluated=evaluated)
    progress.evaluated = evaluated
    return state


class _Window:
    """Training metrics on their way from the device to a record.

    They are read two steps late, so that the device always has a step to work on while the host reads,
    and never more than two batches wait for it. The learning rate of a record too: computing it when the record
    is written would wait for the steps on their way.
    """

    def __init__(
        self,
        schedule: Schedule,
        writers: Sequence[Writer],
        learning_rate: Callable[[int], ArrayLike],
        sums: dict[str, float],
    ):
        self.sums = dict(sums)
        self._schedule = schedule
        self._writers = writers
        self._learning_rate = learning_rate
        self._pending: list[tuple[int, Metrics, ArrayLike | None, float]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave the time since the last record out of the next one's images per second."""
        self._clock = (time.perf_counter(), self.sums.get("count", 0.0))

    def add(self, step: int, metrics: Metrics) -> None:
        rate = self._learning_rate(step - 1) if self._schedule.logs(step) else None
        self._pending.append((step, metrics, rate, time.perf_counter()))
        if len(self._pending) > 2:
            self._read_one()

    def read(self) -> None:
        while self._pending:
            self._read_one()

    def _read_one(self) -> None:
        step, metrics, rate, time_of_step = self._pending.pop(0)
        values = jax.device_get(metrics)
        if values.pop("nonfinite"):
            raise Diverged(
                f"the loss, a parameter or a statistic is not finite at step {step}: lower the learning rate "
                f"(the last checkpoint is kept)"
            )
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        if rate is not None:
            self._record(step, rate, time_of_step)

    def _record(self, step: int, rate: ArrayLike, time_of_step: float) -> None:
        began, counted = self._clock
        record = {
            "step": step,
            "epoch": self._schedule.epoch(step),
            "split": "train",
            **means(self.sums),
            "learning_rate": np.asarray(rate).item(),
            "images_per_second": (self.sums["count"] - counted) / (time_of_step - began),
        }
        for writer in self._writers:
            writer.write(record)
        self.sums = {}
        self._clock = (time_of_step, 0.0)
