"""Say what is in image files."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxcnn.build import build_preprocessing, find_devices
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun, add_checkpoint_argument
from flaxcnn.config import ConfigError
from flaxcnn.data import Preprocessing
from flaxcnn.inference.predict import STANDARD_INPUT, Prediction, find_images, open_image, predict, sigmoid, softmax
from flaxcnn.models import Classifier, create_model
from flaxcnn.train.parallel import DataParallel
from flaxcnn.visual.annotate import annotate
from flaxcnn.weights import (
    CHECKPOINTS,
    checkpoint,
    count_classes,
    from_torch,
    imagenet_classes,
    load_pretrained,
    preprocessing,
    read_weights,
)

DESCRIPTION = """Say what is in image files: by a run's network (--workdir DIR), by a model with its published weights
(--model NAME), or with those in a file (--model NAME --weights FILE)."""
_BATCH_SIZE = 32


def main(argv: Sequence[str]) -> int:
    """`predict --workdir DIR | --model NAME [--weights FILE] [--json | --csv] [--save-annotated DIR] IMAGE...`."""
    parser = Parser("predict", DESCRIPTION)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", metavar="DIR", help="a run's folder, such as runs/lenet")
    source.add_argument("--model", metavar="NAME", help="with its published weights, or those of --weights")
    parser.add_argument("--weights", metavar="FILE", help="of --model: .pth, .safetensors, or an Orbax folder")
    add_checkpoint_argument(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="files, folders, patterns such as 'photos/*.jpg', or - for an image on standard input",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default: 5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object a line")
    form.add_argument("--csv", action="store_true", help="print a table of comma-separated values, a line a file")
    parser.add_argument("--save-annotated", metavar="DIR", help="a new folder for the pictures with their labels")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu", "tpu"], help="what to compute on")
    known = parser.parse_args(argv)
    if known.top < 1:
        raise ConfigError(f"--top must be 1 or more, not {known.top}")
    if known.weights is not None and known.model is None:
        raise ConfigError("--weights needs --model NAME")
    if known.average and known.workdir is None:
        raise ConfigError("--average needs --workdir DIR")
    if known.checkpoint != "best" and known.workdir is None:
        raise ConfigError("--checkpoint needs --workdir DIR")
    files = find_images(known.images)
    pictures = _Pictures(known.save_annotated) if known.save_annotated else None
    set_up_jax(known.device)
    devices = DataParallel(find_devices(known.device))
    if known.workdir is not None:
        network = _of_run(known.workdir, known.checkpoint, average=known.average)
    else:
        network = _of_model(known.model, known.weights)
    predictions = predict(
        network.compile(devices),
        files,
        preprocessing=network.preprocessing,
        class_names=network.class_names,
        probabilities=network.probabilities,
        top=known.top,
        batch_size=devices.round_up(min(_BATCH_SIZE, len(files))),
    )
    show = _print_json if known.json else _Csv(min(known.top, len(network.class_names))) if known.csv else _print_table
    unreadable = 0
    for prediction in predictions:
        if prediction.error is not None:
            unreadable += 1
            print(f"predict: {prediction.error}", file=sys.stderr)
            continue
        show(prediction)
        if pictures is not None:
            pictures.save(prediction)
    return 1 if unreadable else 0


@dataclass(frozen=True)
class _Network:
    """All that a prediction needs."""

    model: Classifier
    variables: Mapping[str, Any]
    preprocessing: Preprocessing
    class_names: Sequence[str]
    probabilities: Callable[[np.ndarray], np.ndarray] = softmax

    def compile(self, devices: DataParallel) -> Callable[[np.ndarray], np.ndarray]:
        """Images to logits, each device taking its share of a batch."""
        variables = devices.put_state(self.variables)
        apply = devices.jit(lambda variables, batch: self.model.apply(variables, batch["image"], train=False))
        return lambda images: np.asarray(apply(variables, devices.put_batch({"image": images})))


def _of_run(workdir: str, checkpoint: str, *, average: bool) -> _Network:
    run = TrainedRun.read(workdir)
    _, variables = run.load(checkpoint, average=average)
    probabilities = sigmoid if run.config.train.loss == "sigmoid" else softmax
    return _Network(run.model, variables, build_preprocessing(run.config, run.model), run.class_names, probabilities)


def _of_model(name: str, weights: str | None) -> _Network:
    if weights is None:
        return _Network(*load_pretrained(name), imagenet_classes())
    # They are taken to see a picture as the published ones do, where there are some.
    is_published = any(row.model == name for row in CHECKPOINTS)
    try:
        model = create_model(name, **(checkpoint(name).options if is_published else {}))
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error
    state_dict = read_weights(weights).state_dict
    model = model.clone(num_classes=count_classes(model, state_dict))
    view = preprocessing(name) if is_published else Preprocessing(model.image_size)
    names = imagenet_classes() if model.num_classes == 1000 else [f"class {i}" for i in range(model.num_classes)]
    return _Network(model, from_torch(model, state_dict), view, names)


class _Csv:
    """Prints a line a prediction, after a line of names."""

    def __init__(self, top: int):
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        names = [name for i in range(1, top + 1) for name in (f"label_{i}", f"probability_{i}")]
        self._writer.writerow(["file", *names])

    def __call__(self, prediction: Prediction) -> None:
        values = [value for label, p in prediction.classes for value in (label, f"{p:.6g}")]
        self._writer.writerow([prediction.file, *values])


def _print_json(prediction: Prediction) -> None:
    classes = [{"label": label, "probability": probability} for label, probability in prediction.classes]
    print(json.dumps({"file": prediction.file, "predictions": classes}))


def _print_table(prediction: Prediction) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=2)
    for label, p in prediction.classes:
        table.add_row("", Text(label), Text(f"{p:7.2%}"), Bar(1, 0, p, width=30))
    console.print(Text(prediction.file), soft_wrap=True)
    console.print(table)


class _Pictures:
    """A new folder of pictures with their labels.

    Args:
        folder: must not hold anything.

    Raises:
        ConfigError: when it does, or cannot be made.
    """

    def __init__(self, folder: str):
        self._folder, self._names = Path(folder), set[str]()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if any(self._folder.iterdir()):
                raise ConfigError(f"--save-annotated: {folder} is not empty; name a new folder")
        except OSError as error:
            raise ConfigError(f"--save-annotated: cannot write {folder}: {error.strerror}") from error

    def save(self, prediction: Prediction) -> None:
        """Save a picture under its name, with a number where that is taken."""
        stem = "stdin" if prediction.file == STANDARD_INPUT else Path(prediction.file).stem
        name = next(n for i in range(len(self._names) + 1) if (n := f"{stem}-{i}" if i else stem) not in self._names)
        self._names.add(name)
        annotate(open_image(prediction.file), prediction.classes).save(self._folder / f"{name}.jpg", quality=92)
