"""Train a model as a config file describes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxcnn import data
from flaxcnn.build import (
    Experiment,
    build,
    build_batches,
    build_devices,
    build_put_batch,
    build_step,
    evaluation_loss,
    fingerprint,
    initial_state,
    with_weights,
)
from flaxcnn.cli.boards import Pictures
from flaxcnn.cli.command_line import read_config, tell
from flaxcnn.cli.environment import join_processes, return_freed_memory, set_up_jax
from flaxcnn.cli.report import write_report
from flaxcnn.config import RESUMABLE, Config, ConfigError
from flaxcnn.data.folder import skipped_lines
from flaxcnn.errors import first_line
from flaxcnn.inference import evaluate, evaluate_with_outputs, make_eval_step
from flaxcnn.train import TrainState, in_phases
from flaxcnn.train.checkpoint import CheckpointError, Checkpoints
from flaxcnn.train.loop import Diverged, EarlyStopping, Progress, stop_signal, train
from flaxcnn.train.parallel import DataParallel, SharedStop
from flaxcnn.train.profile import profiled
from flaxcnn.train.run import RunFolder
from flaxcnn.train.writers import (
    Board,
    Console,
    JsonLines,
    TensorBoard,
    WeightsAndBiases,
    Writer,
    describe,
    read_records,
)
from flaxcnn.visual.curves import draw_curves

DESCRIPTION = "Train a model. The same command again goes on where the run stopped."
_DEADLINE = 1  # As a reason to stop: smaller than the number of any signal that is one, which outranks it.


def main(argv: Sequence[str]) -> int:
    """`train --config FILE [--workdir DIR] [--section.field VALUE ...]`."""
    began = time.monotonic()
    config, name = read_config(argv, prog="train", description=DESCRIPTION)
    set_up_jax(config.device)
    join_processes(config.distributed)
    with _ending_alone(config):
        folder = RunFolder(config.workdir or Path("runs") / name)
        config = _with_absolute_data(config, folder)
        devices = build_devices(config)
        experiment = build(config)
        with _opened(folder, config, experiment):
            deadline = began + 60 * (config.train.max_minutes or float("inf"))
            return _train(config, experiment, devices, folder, deadline)


@contextlib.contextmanager
def _ending_alone(config: Config) -> Iterator[None]:
    """End one of several processes at once where it meets an error: an orderly end would wait for the others.

    They are in the midst of a step that it takes no more part in, and end as when a process is lost.
    """
    try:
        yield
    except Diverged:  # which all meet at the same step
        raise
    except (Exception, KeyboardInterrupt) as error:
        if config.distributed.coordinator is None or jax.process_count() == 1:
            raise
        status = 1
        try:
            if isinstance(error, (jax.errors.JaxRuntimeError, CheckpointError)):
                lost = "where another process was lost, the same commands go on from the last checkpoint"
                print(f"train: {first_line(error)}; {lost}", file=sys.stderr)
            else:
                status = tell(error, "train", debug="--debug" in sys.argv)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # even where the disk is too full for a line
            os._exit(status)


@contextlib.contextmanager
def _opened(folder: RunFolder, config: Config, experiment: Experiment) -> Iterator[None]:
    """The run's folder, opened by the first process before any other goes on."""
    sources = {"train": experiment.train_source, "val": experiment.val_source}
    examples = {split: fingerprint(source) for split, source in sources.items()}
    if jax.process_count() > 1:
        _check_alike(config, examples)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            opened = folder.open(
                config.to_dict(),
                free=RESUMABLE,
                class_names=experiment.train_source.class_names,
                examples=examples,
            )
            stack.enter_context(opened)
            for split, source in sources.items():
                folder.write_example_names(split, map(source.key, range(len(source))))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("run folder")
        yield


_OF_A_PROCESS = {"data.path", "data.cache", "data.threads", "data.processes", "data.download"}
"""Fields that processes may differ in."""


def _check_alike(config: Config, examples: dict[str, str]) -> None:
    """Refuse processes that were started differently: they would train apart, or wait for each other forever."""
    sections = {name: config.to_dict()[name] for name in ("model", "data", "optimizer", "train", "distill")}
    fields = {f"{name}.{field}": value for name, section in sections.items() for field, value in section.items()}
    shared = {name: value for name, value in fields.items() if name not in _OF_A_PROCESS}
    shared |= {f"the {split} examples": what for split, what in examples.items()}
    own = np.array([zlib.crc32(repr(value).encode()) for value in shared.values()], np.uint32)
    everyones = multihost_utils.process_allgather(own)  # (processes, fields)
    if differing := [name for name, column in zip(shared, everyones.T, strict=True) if np.ptp(column)]:
        raise ConfigError(f"the processes differ in {', '.join(differing)}: start the same command on each")


def _with_absolute_data(config: Config, folder: RunFolder) -> Config:
    """The data's path, and its cache's, as `evaluate` can read them from anywhere."""
    settings = config.data
    if settings.cache is not None and settings.cache != "memory":
        settings = replace(settings, cache=str(Path(settings.cache).expanduser().absolute()))
    if settings.path is not None:
        path = Path(settings.path).expanduser().absolute()
        if folder.path.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"the run folder {folder.path} lies within data.path {path}; choose another --workdir")
        settings = replace(settings, path=str(path))
    return replace(config, data=settings)


def _train(config: Config, experiment: Experiment, devices: DataParallel, folder: RunFolder, deadline: float) -> int:
    """Bring up the run's parts, from the latest checkpoint if there is one, and train."""
    schedule, is_first = experiment.schedule, jax.process_index() == 0
    checkpoints = Checkpoints(folder.checkpoints, keep=config.train.keep, best_metric=config.train.best_metric)
    progress, start, origin = Progress(), checkpoints.latest() or 0, []
    state = initial_state(config, experiment)
    if not start:
        state, origin = with_weights(config, experiment.model, state)
    state = devices.put_state(state)
    batches = build_batches(config, experiment)
    if start:
        state, saved = checkpoints.restore(start, state)
        batches.set_state(saved.pop("data"))
        progress = Progress(**saved)
    early_stopping = EarlyStopping(config.train.best_metric, config.train.patience)
    console = Console(
        schedule.total,
        schedule.steps_per_epoch,
        start_step=start,
        file=None if is_first else io.StringIO(),
        num_classes=len(experiment.train_source.class_names),
    )
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(console.close)
        console.say(_headline(config, experiment, devices, folder, state))
        for line in (*skipped_lines(experiment.train_source, experiment.val_source), *origin):
            console.say(line)
        if start:
            console.say(f"resuming from step {start} of {schedule.total}")
        signalled = cleanup.enter_context(stop_signal())
        stop = SharedStop(devices, lambda: signalled.received or _DEADLINE * (time.monotonic() >= deadline))
        files: list[Writer] = []
        boards: list[Board] = []
        if is_first:
            files = [JsonLines(folder.metrics, resume_step=start, evaluated=progress.evaluated)]
            boards = [TensorBoard(folder.tensorboard, resume_step=start)]
            if config.train.wandb is not None:
                boards.append(WeightsAndBiases(config.train.wandb, folder.path))
        for writer in (*files, *boards):
            cleanup.callback(writer.close)
        pictures = Pictures(boards, config, experiment)
        pictures.begin(start)
        cleanup.callback(batches.close)
        batches.start_prefetch()  # The first batch is ready once the steps are compiled.
        put_batch = build_put_batch(experiment, devices)
        step, evaluate_state = _compile(config, experiment, devices, put_batch, state, console, stop, pictures)
        cleanup.push(_closing(checkpoints))
        if config.train.profile is not None and is_first:
            first, last = config.train.profile
            if start >= first:
                console.say(f"train.profile: step {first} was made before; nothing is recorded")
            step = cleanup.enter_context(profiled(step, first, last, folder.profile, start=start))
        state = train(
            step,
            state,
            batches,
            schedule=schedule,
            put_batch=put_batch,
            evaluate=evaluate_state,
            checkpoints=checkpoints,
            writers=[console, *files, *boards],
            learning_rate=experiment.learning_rate,
            progress=progress,
            early_stopping=early_stopping,
            stop=stop,
        )
    if is_first and folder.metrics.stat().st_size:
        draw_curves(read_records(folder.metrics), folder.curves, steps_per_epoch=schedule.steps_per_epoch)
    done = int(state.step)
    finished = done == schedule.total and progress.evaluated
    if not finished and not early_stopping.ends(progress):
        saved = "stopped and saved at" if done else "stopped before the first update, at"
        console.say(f"{saved} step {done} of {schedule.total}; the same command goes on from there")
        return 0 if stop.reason == _DEADLINE else 128 + stop.reason
    if early_stopping.ends(progress):
        console.say(f"ended at step {done}: {config.train.best_metric} got no better in {progress.waited} evaluations")
    if is_first:
        _print_result(folder)
        # Another process's part of the devices takes no part in it.
        if config.train.report and jax.process_count() == 1 and (done > start or not folder.report.exists()):
            write_report(folder)
            print(f"report in {folder.report}")
    return 0


def _closing(checkpoints: Checkpoints) -> Callable[..., None]:
    """What closes them at the end; after an error of one process the others would not take part."""

    def close(error_type: type[BaseException] | None, *_: object) -> None:
        if error_type in (None, Diverged) or jax.process_count() == 1:
            checkpoints.close()

    return close


def _compile(
    config: Config,
    experiment: Experiment,
    devices: DataParallel,
    put_batch: Callable[..., Any],
    state: TrainState,
    console: Console,
    stop: Callable[[], bool],
    pictures: Pictures,
) -> tuple[Callable[..., Any], Callable[[TrainState], dict[str, float] | None]]:
    """The training step and the evaluation, compiled ahead of the first batch."""
    view = experiment.preprocessing
    eval_batch_size = devices.round_up(config.data.eval_batch_size)
    labels = experiment.train_source.labels
    kind = np.int32 if labels.ndim == 1 else np.float32

    def batch_of(n: int, **more: np.ndarray) -> dict[str, jax.Array]:
        n //= jax.process_count()
        zeros = {
            "image": np.zeros((n, view.size, view.size, view.channels), np.float32),
            "label": np.zeros((n, *labels.shape[1:]), kind),
        }
        return devices.put_batch({**zeros, **{name: array[:n] for name, array in more.items()}})

    console.say("compiling the training and evaluation steps ...")
    began = time.monotonic()
    return_freed_memory()  # of the initialisation's compilation, before the step's takes more
    teacher = [devices.put_state(experiment.teacher[1])] if experiment.teacher else []
    batch, steps = batch_of(config.data.batch_size), {}
    for first, trainable in experiment.phases.items():
        step = devices.jit_step(build_step(config, experiment, devices, trainable), state)
        try:
            steps[first] = step.lower(state, batch, *teacher).compile()
        except ValueError as error:  # a batch or an image that the network cannot be trained with
            raise ConfigError(f"data.batch_size {config.data.batch_size}, image size {view.size}: {error}") from error
    compiled = in_phases(steps, int(state.step))
    eval_step = devices.jit(make_eval_step(experiment.model, loss=evaluation_loss(config), keep="predictions"))
    padded = batch_of(eval_batch_size, mask=np.zeros(eval_batch_size, np.float32))
    eval_step = eval_step.lower(state.variables, padded).compile()
    return_freed_memory()
    console.say(f"compiled in {time.monotonic() - began:.1f} s")

    def train_step(state: TrainState, batch: Any) -> Any:
        return compiled(state, batch, *teacher)

    def held_out() -> Iterator[dict[str, jax.Array]]:
        batches = data.eval_batches(
            experiment.val_source,
            experiment.preprocessing.pixels,
            batch_size=eval_batch_size,
            num_threads=config.data.threads,
            shard=(jax.process_index(), jax.process_count()),
        )
        return map(put_batch, batches)

    def evaluate_state(state: TrainState) -> dict[str, float] | None:
        found = evaluate_with_outputs(eval_step, state.variables, held_out(), interrupted=stop)
        averaged = evaluate(eval_step, state.average, held_out(), interrupted=stop) if found and state.average else {}
        if found is None or averaged is None:
            return None
        result, predicted, labels = found
        pictures.evaluated(state, predicted, labels)
        return {**result, **{f"average_{name}": averaged[name] for name in averaged if name != "examples"}}

    return train_step, evaluate_state


def _headline(
    config: Config, experiment: Experiment, devices: DataParallel, folder: RunFolder, state: TrainState
) -> str:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    size = experiment.preprocessing.size
    device = devices.mesh.devices.flat[0].device_kind
    return (
        f"{config.model.name}, {parameters:,} parameters, on {len(experiment.train_source):,} images of {size}x{size} "
        f"({len(experiment.val_source):,} held out), {len(experiment.train_source.class_names)} classes; "
        f"{devices.device_count} x {device}; {folder.path}{os.sep}"
    )


def _print_result(folder: RunFolder) -> None:
    last = next(record for record in reversed(read_records(folder.metrics)) if record["split"] == "eval")
    print(f"{describe(last, num_classes=len(folder.read_class_names()))}  ({last['examples']} examples)")
    print(f"curves in {folder.curves}, checkpoints in {folder.checkpoints}")
