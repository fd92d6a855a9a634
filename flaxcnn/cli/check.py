"""Check a config before it is run: compile its step, say what memory it takes, and overfit one batch."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import jax

from flaxcnn import schedules
from flaxcnn.build import (
    build,
    build_batches,
    build_devices,
    build_optimizer,
    build_put_batch,
    build_step,
    initial_state,
    with_weights,
)
from flaxcnn.cli.command_line import Parser, read_config
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.config import ConfigError
from flaxcnn.train import TrainState

DESCRIPTION = """Compile a config's training step, say what memory it takes, and overfit one batch: a network that
cannot learn one batch by heart has a mistake in it. Nothing is written.

--steps N (100) is how many updates the batch gets; 0 only compiles."""
LEARNT = 0.95


def main(argv: Sequence[str]) -> int:
    """`check --config FILE [--steps N] [--section.field VALUE ...]`."""
    own = Parser("check", add_help=False)
    own.add_argument("--steps", type=int, default=100)
    known, words = own.parse_known_args(argv)
    if known.steps < 0:
        raise ConfigError(f"--steps must be 0 or more, not {known.steps}")
    config, _ = read_config(words, prog="check", description=DESCRIPTION)
    # Mixtures are not to be learnt by heart, and the schedule's first rates are small.
    config = replace(config, train=replace(config.train, mixup=0.0, cutmix=0.0))
    if config.distributed.coordinator is not None:
        raise ConfigError("distributed.coordinator: check runs in one process")
    set_up_jax(config.device)
    devices, experiment = build_devices(config), build(config)
    rate = schedules.constant(config.optimizer.learning_rate, known.steps)
    optimizer, phases = build_optimizer(config, experiment.model, rate, experiment.schedule.steps_per_epoch)
    experiment = replace(experiment, learning_rate=rate, optimizer=optimizer)
    state, _ = with_weights(config, experiment.model, initial_state(config, experiment))
    state = devices.put_state(state)
    with closing(build_batches(config, experiment)) as batches:
        batch = build_put_batch(experiment, devices)(next(batches))
    teacher = [devices.put_state(experiment.teacher[1])] if experiment.teacher else []
    began = time.monotonic()
    try:
        steps = [
            devices.jit_step(build_step(config, experiment, devices, trainable), state)
            .lower(state, batch, *teacher)
            .compile()
            for trainable in phases.values()
        ]
    except ValueError as error:  # a batch or an image that the network cannot be trained with
        raise ConfigError(f"data.batch_size {config.data.batch_size}: {error}") from error
    for line in _needs(state, batch, steps[-1]):  # the most parameters train in the last phase
        print(line)
    print(f"compiled in {time.monotonic() - began:.1f} s")
    return _overfit(steps[0], state, batch, teacher, known.steps) if known.steps else 0


def _needs(state: TrainState, batch: Any, step: Any) -> list[str]:
    memory = step.memory_analysis()
    flops = (step.cost_analysis() or {}).get("flops", 0.0)
    lines = [
        f"parameters       {_size(state.params)}",
        f"optimizer state  {_size(state.opt_state)}",
        f"batch            {_size(batch)}",
    ]
    if memory is not None:
        lines.append(f"temporary        {memory.temp_size_in_bytes / 1e6:10.1f} MB a device, while a step is computed")
    return [*lines, f"operations       {flops / 1e9:10.1f} GFLOP a step and device, as the compiler counts them"]


def _size(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    return f"{sum(leaf.nbytes for leaf in leaves) / 1e6:10.1f} MB, {sum(leaf.size for leaf in leaves):,} numbers"


def _overfit(step: Any, state: TrainState, batch: Any, teacher: list[Any], steps: int) -> int:
    top1 = 0.0
    for number in range(1, steps + 1):
        state, metrics = step(state, batch, *teacher)
        if number in (1, steps) or number % max(steps // 5, 1) == 0:
            count = float(metrics["count"])
            top1 = float(metrics["top1"]) / count
            print(f"step {number:5}  loss {float(metrics['loss']) / count:.4f}  top-1 {top1:.1%} of one batch")
    if top1 < LEARNT:
        print(f"check: {steps} steps did not teach it one batch; try other --steps or learning rates", file=sys.stderr)
        return 1
    return 0
