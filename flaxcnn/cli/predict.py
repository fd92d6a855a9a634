"""Say what is in image files."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxcnn.build import find_devices
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.network import add_network_arguments, check_network_arguments, read_network
from flaxcnn.config import ConfigError
from flaxcnn.inference.predict import STANDARD_INPUT, Prediction, find_images, open_image, predict
from flaxcnn.train.parallel import DataParallel
from flaxcnn.visual.annotate import annotate

DESCRIPTION = """Say what is in image files: by a run's network (--workdir DIR), by a model with its published weights
(--model NAME), or with those in a file (--model NAME --weights FILE)."""
_BATCH_SIZE = 32


def main(argv: Sequence[str]) -> int:
    """`predict --workdir DIR | --model NAME [--weights FILE] [--json | --csv] [--save-annotated DIR] IMAGE...`."""
    parser = Parser("predict", DESCRIPTION)
    add_network_arguments(parser)
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
    known = parser.parse_args(argv)
    if known.top < 1:
        raise ConfigError(f"--top must be 1 or more, not {known.top}")
    check_network_arguments(known)
    files = find_images(known.images)
    pictures = _Pictures(known.save_annotated) if known.save_annotated else None
    set_up_jax(known.device)
    devices = DataParallel(find_devices(known.device))
    network = read_network(known)
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
