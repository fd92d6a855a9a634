"""Evaluate a run's checkpoint on held-out data."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from flaxcnn import data
from flaxcnn.build import (
    build_model,
    build_source,
    build_splits,
    build_views,
    evaluation_loss,
    find_devices,
    fingerprint,
)
from flaxcnn.cli.command_line import Parser, override
from flaxcnn.cli.details import Details
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun, add_run_arguments
from flaxcnn.config import Config, ConfigError
from flaxcnn.data.folder import skipped_lines
from flaxcnn.inference import evaluate, evaluate_with_outputs, make_eval_step
from flaxcnn.inference.predict import sigmoid, softmax
from flaxcnn.train.parallel import DataParallel
from flaxcnn.train.writers import describe

_USED = (
    *("name", "path", "builder", "download", "cache", "train_split", "val_split", "folds", "fold"),
    *("val_fraction", "on_error", "image_size", "eval_batch_size", "resize", "interpolation"),
    "views",
    *("mean", "std", "threads"),
)
DESCRIPTION = """Evaluate a run's checkpoint on held-out data: every example once, whatever the batch size.

--data.FIELD VALUE overrides the run's own, such as --data.path or --data.eval_batch_size; --device does too.
--data.path FOLDER --data.val_split all evaluates all images of another folder."""


def main(argv: Sequence[str]) -> int:
    """`evaluate --workdir DIR [--checkpoint best|latest|STEP] [--json] [--details DIR] [--data.FIELD VALUE ...]`."""
    parser = Parser("evaluate", DESCRIPTION)
    add_run_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object")
    parser.add_argument(
        "--details", metavar="DIR", help="a folder for scores by class, confusions, calibration, mistakes, predictions"
    )
    known, words = parser.parse_known_args(argv)
    run = read_run(known.workdir, words, prog="evaluate")
    details = Details(known.details) if known.details else None
    set_up_jax(run.config.device)
    source = build_source(run.config, "val")
    check_classes(source, run)
    step, variables = run.load(known.checkpoint, average=known.average)
    result = evaluate_run(run, variables, source, details)
    for line in (f"{run.folder.path}, checkpoint of step {step}", *skipped_lines(source)):
        print(line, file=sys.stderr)
    if details is not None:
        print(f"details in {known.details}", file=sys.stderr)
    if fingerprint(source) != run.folder.read_examples().get("val"):
        print("these are not the images that training held out: some may be among those it saw", file=sys.stderr)
        if run.config.data.val_split is None and "all" in build_splits(run.config):
            print("they are the share that training would hold out; for all add --data.val_split all", file=sys.stderr)
    if known.json:
        print(json.dumps(result))
    else:
        print(f"{describe(result, num_classes=len(run.class_names))}  ({result['examples']} examples)")
    return 0


def read_run(workdir: str, words: Sequence[str], *, prog: str) -> TrainedRun:
    """Read a run's folder, with what its evaluation depends on overridden.

    Args:
        workdir: the run's folder.
        words: `--data.FIELD VALUE ...`.
        prog: the command, for messages.

    Raises:
        RunError: when it is not a run's.
        ConfigError: names the flag or value that is not right.
    """
    run = TrainedRun.read(workdir)
    config = override(run.config, words, prog=prog)
    _check_used(run.config, config, prog)
    return replace(run, config=config, model=build_model(config, len(run.class_names)))


def evaluate_run(
    run: TrainedRun, variables: Mapping[str, Any], source: data.Source, details: Details | None = None
) -> dict[str, float]:
    """Evaluate a run's network.

    Args:
        run: whose it is.
        variables: of a checkpoint.
        source: of the examples.
        details: write them too.

    Returns:
        The means over all examples, and their number.
    """
    config = run.config
    devices = DataParallel(find_devices(config.device))
    batches = data.eval_batches(
        source,
        build_views(config, run.model),
        batch_size=devices.round_up(config.data.eval_batch_size),
        num_threads=config.data.threads,
    )
    exclusive = config.train.loss == "softmax"
    step_of = partial(make_eval_step, run.model, loss=evaluation_loss(config), exclusive=exclusive)
    put = devices.put_state(variables), map(devices.put_batch, batches)
    if details is None:
        result = evaluate(devices.jit(step_of()), *put)
        assert result is not None  # nothing interrupts it
        return result
    found = evaluate_with_outputs(devices.jit(step_of(keep="logits")), *put)
    assert found is not None  # nothing interrupts it
    result, logits, labels = found
    probabilities = (softmax if exclusive else sigmoid)(logits)
    details.write(result, source, logits, probabilities, labels)
    return result


def _check_used(run: Config, config: Config, prog: str) -> None:
    """Refuse what the evaluation of a trained network does not depend on."""
    for section in ("model", "optimizer", "train", "distill", "distributed", "data"):
        before, after = asdict(getattr(run, section)), asdict(getattr(config, section))
        for name in before:
            if before[name] != after[name] and not (section == "data" and name in _USED):
                raise ConfigError(f"{prog} does not use --{section}.{name}")


def check_classes(source: data.Source, run: TrainedRun) -> None:
    """Raises ConfigError unless a source's classes are the run's."""
    found, trained = source.class_names, run.class_names
    if list(found) != list(trained):
        raise ConfigError(
            f"data: its {len(found)} classes are not the {len(trained)} that the run was trained on; "
            f"only in the data: {_first(set(found) - set(trained))}; "
            f"only in the run: {_first(set(trained) - set(found))}"
        )


def _first(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) or "none"
