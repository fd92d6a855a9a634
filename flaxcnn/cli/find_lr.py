"""Find a learning rate: train with one that grows at every step, and draw the loss against it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

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
from flaxcnn.train.lr_finder import geometric, range_test, suggestion
from flaxcnn.visual.learning_rate import draw_range_test

DESCRIPTION = """Train with a learning rate that grows from 1e-6 to 10, and say where the loss falls steepest.

--steps N (100) is how many updates it takes, --out FILE (learning_rate.png) the picture."""
LOWEST, HIGHEST, FEWEST = 1e-6, 10.0, 10


def main(argv: Sequence[str]) -> int:
    """`find_lr --config FILE [--steps N] [--out FILE] [--section.field VALUE ...]`."""
    own = Parser("find_lr", add_help=False)
    own.add_argument("--steps", type=int, default=100)
    own.add_argument("--out", type=Path, default=Path("learning_rate.png"))
    known, words = own.parse_known_args(argv)
    if known.steps < FEWEST:
        raise ConfigError(f"--steps must be {FEWEST} or more, not {known.steps}")
    if known.out.suffix != ".png":
        raise ConfigError(f"--out must end in .png: {known.out}")
    config, _ = read_config(words, prog="find_lr", description=DESCRIPTION)
    if config.distributed.coordinator is not None:
        raise ConfigError("distributed.coordinator: find_lr runs in one process")
    set_up_jax(config.device)
    devices, experiment = build_devices(config), build(config)
    rate = geometric(LOWEST, HIGHEST, known.steps)
    optimizer, phases = build_optimizer(config, experiment.model, rate, experiment.schedule.steps_per_epoch)
    experiment = replace(experiment, learning_rate=rate, optimizer=optimizer)
    state, _ = with_weights(config, experiment.model, initial_state(config, experiment))
    state = devices.put_state(state)
    step = devices.jit_step(build_step(config, experiment, devices, phases[0]), state)
    teacher = [devices.put_state(experiment.teacher[1])] if experiment.teacher else []
    with closing(build_batches(config, experiment)) as batches:
        losses, end = range_test(
            lambda state, batch: step(state, batch, *teacher),
            state,
            map(build_put_batch(experiment, devices), itertools.islice(batches, known.steps)),
        )
    if len(losses) < FEWEST:
        raise ConfigError(f"the loss {end} after {len(losses)} steps: there is no rate to suggest")
    rates = [float(rate(count)) for count in range(len(losses))]
    chosen = suggestion(rates, losses)
    draw_range_test(rates, losses, chosen, known.out)
    print(f"{chosen:.2g}: the loss falls steepest there; it is lowest at {rates[losses.index(min(losses))]:.2g}")
    print(f"picture in {known.out}")
    return 0
