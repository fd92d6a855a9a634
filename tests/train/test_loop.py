"""The training loop: what happens at which step, and that a run goes on as if it had not stopped.

The step is a stand-in whose loss at step n is n, so that every record can be reckoned by hand.
"""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from flaxcnn.train.loop import Diverged, EarlyStopping, Progress, Schedule, stop_signal, train

COUNT = 4  # examples a batch


class Numbered:
    """Batches 1, 2, 3, ..."""

    def __init__(self, position: int = 0) -> None:
        self.position = position

    def __next__(self) -> dict[str, int]:
        self.position += 1
        return {"number": self.position}

    def get_state(self) -> dict[str, int]:
        return {"position": self.position}


class Saved:
    """Remembers what the loop saves, and when: `events` is shared with the writer and the evaluation."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.checkpoints: dict[int, dict[str, Any]] = {}

    def save(self, step, state, progress, *, metrics=None) -> None:
        self.events.append(("save", step))
        window = dict(progress["window"])
        self.checkpoints[step] = {"state": state, **progress, "window": window, "metrics": metrics}


def fake_step(state, batch):
    number = batch["number"]
    assert number == state.step + 1, "the batches are out of step"
    metrics = {"loss": jnp.float32(number * COUNT), "top1": jnp.int32(number % 2), "count": jnp.float32(COUNT)}
    broken = number == state.breaks_at
    return SimpleNamespace(step=number, breaks_at=state.breaks_at), {**metrics, "nonfinite": jnp.int32(broken)}


class Run:
    """A run with everything it did recorded."""

    def __init__(self, schedule: Schedule, *, breaks_at: int = 0, stop_at: int | None = None, eval_stops: bool = False):
        self.schedule, self.breaks_at, self.stop_at, self.eval_stops = schedule, breaks_at, stop_at, eval_stops
        self.losses: dict[int, float] = {}
        self.early_stopping = EarlyStopping()
        self.events: list[Any] = []
        self.records: list[dict[str, Any]] = []
        self.saved = Saved(self.events)
        self.step_now = 0

    def write(self, record) -> None:
        self.events.append((record["split"], record["step"]))
        self.records.append(dict(record))

    def evaluate(self, state) -> dict[str, float] | None:
        if self.eval_stops:
            return None
        if self.losses:
            return {"loss": self.losses[state.step], "top1": 0.0}
        return {"loss": 0.5, "top1": state.step / 100, "top5": 1.0, "examples": 10}

    def step(self, state, batch):
        state, metrics = fake_step(state, batch)
        self.step_now = state.step
        return state, metrics

    def go(self, start: int = 0, progress: Progress | None = None) -> Run:
        self.state = train(
            self.step,
            SimpleNamespace(step=start, breaks_at=self.breaks_at),
            Numbered(start),
            schedule=self.schedule,
            put_batch=lambda batch: batch,
            evaluate=self.evaluate,
            checkpoints=self.saved,
            writers=[self],
            learning_rate=lambda step: 10.0 * step,
            progress=progress,
            early_stopping=self.early_stopping,
            stop=lambda: self.stop_at is not None and self.step_now >= self.stop_at,
        )
        return self


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in records]


def test_records_and_saves_come_at_the_right_steps() -> None:
    run = Run(Schedule(total=10, steps_per_epoch=5, log_every=3, eval_every=5, save_every=2)).go()
    assert run.events == [
        ("save", 2),
        ("train", 3),
        ("save", 4),
        ("train", 5),
        ("eval", 5),
        ("save", 5),
        ("train", 6),
        ("save", 6),
        ("save", 8),
        ("train", 9),
        ("train", 10),
        ("eval", 10),
        ("save", 10),
    ]
    assert run.state.step == 10


def test_a_record_is_the_mean_since_the_last_one() -> None:
    run = Run(Schedule(total=6, steps_per_epoch=4, log_every=4, eval_every=0)).go()
    first, last, evaluation = timeless(run.records)
    assert first == {
        "step": 4, "epoch": 1, "split": "train", "loss": 2.5, "top1": 2 / 16, "learning_rate": 30.0
    }  # fmt: skip
    assert last == {
        "step": 6, "epoch": 2, "split": "train", "loss": 5.5, "top1": 1 / 8, "learning_rate": 50.0
    }  # fmt: skip
    assert evaluation == {
        "step": 6, "epoch": 2, "split": "eval", "loss": 0.5, "top1": 0.06, "top5": 1.0, "examples": 10
    }  # fmt: skip
    assert all(record["images_per_second"] > 0 for record in run.records if record["split"] == "train")


def test_the_end_is_evaluated_and_saved_whatever_the_intervals() -> None:
    run = Run(Schedule(total=3, steps_per_epoch=2, log_every=100, eval_every=100)).go()
    assert run.events == [("train", 3), ("eval", 3), ("save", 3)]


def test_a_checkpoint_holds_its_own_step() -> None:
    run = Run(Schedule(total=6, steps_per_epoch=6, log_every=4, eval_every=0, save_every=5)).go()
    checkpoint = run.saved.checkpoints[5]
    assert checkpoint["state"].step == 5
    assert checkpoint["data"] == {"position": 5}
    assert checkpoint["window"] == {"loss": 5.0 * COUNT, "top1": 1.0, "count": COUNT}
    assert checkpoint["metrics"] is None
    assert not checkpoint["evaluated"]
    last = run.saved.checkpoints[6]
    assert last["evaluated"]
    assert last["window"] == {}
    assert last["metrics"]["top1"] == 0.06


@pytest.mark.parametrize("at", [1, 3, 4, 5, 6, 8, 9])
def test_a_run_that_stopped_goes_on_as_if_it_had_not(at: int) -> None:
    schedule = Schedule(total=10, steps_per_epoch=5, log_every=4, eval_every=5)
    whole = Run(schedule).go()
    first = Run(schedule, stop_at=at).go()
    assert max(first.saved.checkpoints) == at
    checkpoint = first.saved.checkpoints[at]
    rest = Run(schedule).go(at, Progress(checkpoint["evaluated"], checkpoint["window"]))
    assert timeless(first.records + rest.records) == timeless(whole.records)


def test_an_interrupted_evaluation_is_made_again() -> None:
    schedule = Schedule(total=4, steps_per_epoch=2, log_every=2, eval_every=2)
    first = Run(schedule, stop_at=2, eval_stops=True).go()
    assert first.events == [("train", 2), ("save", 2)]
    assert not first.saved.checkpoints[2]["evaluated"]
    rest = Run(schedule).go(2, Progress(False, first.saved.checkpoints[2]["window"]))
    assert rest.events == [("eval", 2), ("save", 2), ("train", 4), ("eval", 4), ("save", 4)]


def test_a_finished_run_does_nothing() -> None:
    run = Run(Schedule(total=4, steps_per_epoch=2, log_every=2, eval_every=2)).go(4, Progress(evaluated=True))
    assert run.events == []


def test_a_run_stopped_before_its_first_step_saves_nothing() -> None:
    run = Run(Schedule(total=4, steps_per_epoch=2, log_every=2, eval_every=2), stop_at=0).go()
    assert run.events == []


@pytest.mark.parametrize("at", range(1, 11))
def test_divergence_names_the_step_and_saves_nothing_of_it(at: int) -> None:
    run = Run(Schedule(total=10, steps_per_epoch=5, log_every=3, eval_every=5, save_every=2), breaks_at=at)
    with pytest.raises(Diverged, match=rf"not finite at step {at}: lower the learning rate"):
        run.go()
    assert all(step < at for _, step in run.events)
    due = [step for step in (2, 4, 5, 6, 8) if step < at]
    assert list(run.saved.checkpoints) == due


def test_divergence_is_not_a_mistake_of_usage() -> None:
    assert Diverged.exit_status == 1


def test_signals_are_requests_to_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,) * 3, (signal.SIGINT, signal.SIGTERM)])
def test_a_second_sigterm_waits_for_the_checkpoint(numbers: tuple[int, ...]) -> None:
    with stop_signal() as stop:
        for number in numbers:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 0.01)  # so that each is handled
        assert stop.received == numbers[0]


def test_a_second_ctrl_c_ends_at_once() -> None:
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)


LOSSES = {1: 3.0, 2: 1.0, 3: 2.0, 4: 1.0, 5: 0.5, 6: 0.7, 7: 0.6, 8: 0.9, 9: 0.1, 10: 0.1}


def watched(**options: Any) -> Run:
    run = Run(Schedule(total=10, steps_per_epoch=1, log_every=1, eval_every=1), **options)
    run.losses, run.early_stopping = LOSSES, EarlyStopping("loss", patience=3)
    return run


def test_a_run_that_gets_no_better_ends() -> None:
    run = watched().go()
    assert run.state.step == 8  # three evaluations after the best, of step 5
    assert run.events[-2:] == [("eval", 8), ("save", 8)]


@pytest.mark.parametrize("at", [3, 6, 8])
def test_patience_survives_a_stop(at: int) -> None:
    first = watched(stop_at=at).go()
    saved = first.saved.checkpoints[at]
    progress = Progress(saved["evaluated"], saved["window"], saved["best"], saved["waited"])
    assert watched().go(at, progress).state.step == 8
