"""Train a model as a config file describes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxcnn import data
from flaxcnn.build import Experiment, build, build_devices, fingerprint, initial_state
from flaxcnn.cli.command_line import read_config
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.config import RESUMABLE, Config, ConfigError
from flaxcnn.inference import evaluate, make_eval_step
from flaxcnn.train import TrainState, make_train_step
from flaxcnn.train.checkpoint import Checkpoints
from flaxcnn.train.loop import Progress, stop_signal, train
from flaxcnn.train.parallel import DataParallel
from flaxcnn.train.run import RunFolder
from flaxcnn.train.writers import Console, JsonLines, TensorBoard, read_records
from flaxcnn.visual.curves import draw_curves

DESCRIPTION = "Train a model. The same command again goes on where the run stopped."


def main(argv: Sequence[str]) -> int:
    """`train --config FILE [--workdir DIR] [--section.field VALUE ...]`."""
    config, name = read_config(argv, prog="train", description=DESCRIPTION)
    set_up_jax(config.device)
    folder = RunFolder(config.workdir or Path("runs") / name)
    config = _with_absolute_data(config, folder)
    devices = build_devices(config)
    experiment = build(config)
    with folder.open(
        config.to_dict(),
        free=RESUMABLE,
        class_names=experiment.train_source.class_names,
        examples={"train": fingerprint(experiment.train_source), "val": fingerprint(experiment.val_source)},
    ):
        for split, source in (("train", experiment.train_source), ("val", experiment.val_source)):
            folder.write_example_names(split, map(source.key, range(len(source))))
        return _train(config, experiment, devices, folder)


def _with_absolute_data(config: Config, folder: RunFolder) -> Config:
    """The data's path as `evaluate` can read it from anywhere."""
    if config.data.path is None:
        return config
    path = Path(config.data.path).absolute()
    if folder.path.resolve().is_relative_to(path.resolve()):
        raise ConfigError(f"the run folder {folder.path} lies within data.path {path}; choose another --workdir")
    return replace(config, data=replace(config.data, path=str(path)))


def _train(config: Config, experiment: Experiment, devices: DataParallel, folder: RunFolder) -> int:
    """Bring up the run's parts, from the latest checkpoint if there is one, and train."""
    schedule = experiment.schedule
    checkpoints = Checkpoints(folder.checkpoints, keep=config.train.keep)
    state = devices.put_state(initial_state(config, experiment))
    batches = data.train_batches(
        experiment.train_source,
        experiment.train_transform,
        batch_size=config.data.batch_size,
        seed=config.train.seed,
        repeats=config.data.repeats,
        balanced=config.data.balanced,
        num_threads=config.data.threads,
    )
    progress, start = Progress(), checkpoints.latest() or 0
    if start:
        state, saved = checkpoints.restore(start, state)
        batches.set_state(saved.pop("data"))
        progress = Progress(**saved)
    console = Console(schedule.total, schedule.steps_per_epoch, start_step=start)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(console.close)
        console.say(_headline(config, experiment, devices, folder, state))
        for line in _skipped(experiment):
            console.say(line)
        if start:
            console.say(f"resuming from step {start} of {schedule.total}")
        stop = cleanup.enter_context(stop_signal())
        step, evaluate_state = _compile(config, experiment, devices, state, console, stop)
        files = [
            JsonLines(folder.metrics, resume_step=start, evaluated=progress.evaluated),
            TensorBoard(folder.tensorboard, resume_step=start),
        ]
        for file in files:
            cleanup.callback(file.close)
        cleanup.callback(batches.close)
        cleanup.callback(checkpoints.close)
        state = train(
            step,
            state,
            batches,
            schedule=schedule,
            put_batch=devices.put_batch,
            evaluate=evaluate_state,
            checkpoints=checkpoints,
            writers=[console, *files],
            learning_rate=experiment.learning_rate,
            progress=progress,
            stop=stop,
        )
    if folder.metrics.stat().st_size:
        draw_curves(read_records(folder.metrics), folder.curves, steps_per_epoch=schedule.steps_per_epoch)
    if stop.received is not None:
        saved = "stopped and saved at" if int(state.step) else "stopped before the first update, at"
        console.say(f"{saved} step {int(state.step)} of {schedule.total}; the same command goes on from there")
        return 128 + stop.received
    _print_result(folder)
    return 0


def _compile(
    config: Config,
    experiment: Experiment,
    devices: DataParallel,
    state: TrainState,
    console: Console,
    stop: Callable[[], bool],
) -> tuple[Callable[..., Any], Callable[[TrainState], dict[str, float] | None]]:
    """The training step and the evaluation, compiled ahead of the first batch."""
    size = experiment.preprocessing.size
    eval_batch_size = devices.round_up(config.data.eval_batch_size)

    def batch_of(n: int, **more: np.ndarray) -> dict[str, jax.Array]:
        zeros = {"image": np.zeros((n, size, size, 3), np.float32), "label": np.zeros(n, np.int32)}
        return devices.put_batch({**zeros, **more})

    console.say("compiling the training and evaluation steps ...")
    began = time.monotonic()
    step = devices.jit(make_train_step(experiment.model, experiment.optimizer, loss=experiment.loss), donate_state=True)
    try:
        lowered = step.lower(state, batch_of(config.data.batch_size))
    except ValueError as error:  # a batch or an image that the network cannot be trained with
        raise ConfigError(f"data.batch_size {config.data.batch_size}, image size {size}: {error}") from error
    step = lowered.compile()
    eval_step = devices.jit(make_eval_step(experiment.model))
    padded = batch_of(eval_batch_size, mask=np.zeros(eval_batch_size, np.float32))
    eval_step = eval_step.lower(state.variables, padded).compile()
    console.say(f"compiled in {time.monotonic() - began:.1f} s")

    def evaluate_state(state: TrainState) -> dict[str, float] | None:
        batches = data.eval_batches(
            experiment.val_source,
            experiment.preprocessing,
            batch_size=eval_batch_size,
            num_threads=config.data.threads,
        )
        return evaluate(eval_step, state.variables, map(devices.put_batch, batches), interrupted=stop)

    return step, evaluate_state


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


def _skipped(experiment: Experiment) -> list[str]:
    """Which images were left out."""
    files = [file for s in (experiment.train_source, experiment.val_source) for file in getattr(s, "skipped", ())]
    return [f"left out, unreadable ({i} of {len(files)}): {file}" for i, file in enumerate(files, 1)]


def _print_result(folder: RunFolder) -> None:
    last = next(record for record in reversed(read_records(folder.metrics)) if record["split"] == "eval")
    print(f"top-1 {last['top1']:.2%}  top-5 {last['top5']:.2%}  loss {last['loss']:.4f}  ({last['examples']} examples)")
    print(f"curves in {folder.curves}, checkpoints in {folder.checkpoints}")
