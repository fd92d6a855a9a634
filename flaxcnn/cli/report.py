"""Write a run, or a comparison of runs, as one page of HTML."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import flaxcnn
from flaxcnn import data
from flaxcnn.analysis import cost
from flaxcnn.build import build_preprocessing, build_sources, build_train_transform
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.details import Details
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.evaluate import check_classes, evaluate_run, read_run
from flaxcnn.cli.show_data import batch_figure, label_text
from flaxcnn.cli.trained import TrainedRun, add_checkpoint_argument
from flaxcnn.config import ConfigError
from flaxcnn.data.check import class_counts
from flaxcnn.data.transforms import to_pixels
from flaxcnn.inference import default_layer, feature_maps, grad_cam
from flaxcnn.train.run import RunFolder, flat
from flaxcnn.train.writers import Record, read_records
from flaxcnn.visual.attribution import examples_figure
from flaxcnn.visual.curves import comparison_figure, draw_curves, epoch_length
from flaxcnn.visual.report import Part, Picture, Table, report_page

DESCRIPTION = """Write a run as one page of HTML that refers to nothing outside itself: what was trained on what, time,
numbers, curves, scores by class, confusions, calibration, mistakes, Grad-CAM, samples, config, environment.
Its checkpoint is evaluated anew. --data.FIELD VALUE overrides the run's own, such as --data.path; --device does too.

--compare writes the curves and the last numbers of several runs instead, and what differs in their configs."""
_SAMPLES = 24  # of the training data
_EXAMPLES = 8  # of Grad-CAM
_PAIRS = 20  # of classes taken for each other
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PERCENT = {
    **{"top1": "top-1", "top5": "top-5", "mean_average_precision": "mAP", "f1": "F1", "macro_f1": "macro F1"},
    "ece": "calibration error",
}
_SHARES = ("precision", "recall", "specificity", "f1", "average_precision", "share_of_label")
_Sections = list[tuple[str, list[Part]]]


def main(argv: Sequence[str]) -> int:
    """`report --workdir DIR | --compare DIR DIR ... [--output FILE] [--checkpoint best|latest|STEP]`."""
    parser = Parser("report", DESCRIPTION)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", metavar="DIR", help="the run's folder, such as runs/lenet")
    which.add_argument("--compare", metavar="DIR", nargs="+", help="the folders of runs")
    add_checkpoint_argument(parser)
    parser.add_argument(
        "--output", metavar="FILE", help="the page (default: report.html in the run's folder; comparison.html)"
    )
    known, words = parser.parse_known_args(argv)
    output = Path(known.output or (RunFolder(known.workdir).report if known.workdir else "comparison.html"))
    if known.compare:
        if words or known.average or known.checkpoint != "best":
            raise ConfigError("--compare evaluates nothing: it goes with --output only")
        runs = {folder: TrainedRun.read(folder) for folder in known.compare}
        _check_writable(output)
        set_up_jax("cpu")
        title, sections = ", ".join(runs), _comparison(runs)
        page = report_page(title, sections)
    else:
        run = read_run(known.workdir, words, prog="report")
        _check_writable(output)
        set_up_jax(run.config.device)
        page = run_page(run, known.checkpoint, average=known.average)
    _write(output, page)
    print(output)
    return 0


def write_report(folder: RunFolder) -> None:
    """Write the report of a run that has ended, of its best checkpoint, into its folder."""
    _write(folder.report, run_page(TrainedRun.read(folder.path), "best"))


def run_page(run: TrainedRun, checkpoint: str, *, average: bool = False) -> str:
    """The page of a run, its checkpoint evaluated anew.

    Args:
        run: what was trained.
        checkpoint: "best", "latest" or a step.
        average: the moving average of the weights instead of the weights.

    Raises:
        ConfigError: when there is no such checkpoint, or no record yet.
        DataError: when the held-out images are not there.
    """
    step, variables = run.load(checkpoint, average=average)
    which = f"{'averaged weights' if average else 'checkpoint'} of step {step:,}"
    with tempfile.TemporaryDirectory() as folder:
        sections = _report(run, which, variables, Path(folder))
    return report_page(f"{run.config.model.name} on {run.config.data.name}", sections)


def _write(output: Path, page: str) -> None:
    # Replaced whole: a torn page would be taken for the run's.
    partial = output.with_name(f"{output.name}.partial")
    # A class's name may be a folder's, and hold bytes that are no text.
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(output)


def _check_writable(output: Path) -> None:
    """Before minutes are spent on it."""
    if (output.exists() and not output.is_file()) or not os.access(output.parent, os.W_OK):
        raise ConfigError(f"--output: cannot write {output}")


def _report(run: TrainedRun, which: str, variables: Mapping[str, Any], folder: Path) -> _Sections:
    """All about a run, by files in a folder."""
    records, (train, source) = _records(run), build_sources(run.config)
    check_classes(source, run)
    evaluate_run(run, variables, source, Details(str(folder)))
    draw_curves(records, folder / "curves.png", steps_per_epoch=epoch_length(records))
    counts = {"training": class_counts(train), "held out": class_counts(source)}
    transform = build_train_transform(run.config, run.model)
    batch_figure(run.config, train, transform, counts, images=_SAMPLES).savefig(folder / "samples.png")
    _draw_grad_cam(run, variables, source, folder / "grad_cam.png")
    numbers = {which: json.loads((folder / "summary.json").read_text())}
    numbers |= {f"step {r['step']:,}, in training": r for r in _evaluations(records)[-1:]}
    about = {
        "data": f"{run.config.data.name} {run.config.data.path or ''}".rstrip(),
        "images": f"{len(train):,} to train on, {len(source):,} held out",
        "classes": f"{len(run.class_names):,}",
        **_facts(run, records),
    }
    sections: list[tuple[str, Iterable[Part]]] = [
        ("What was trained", [_rows(about)]),
        ("Numbers on the held-out images", [_numbers(numbers)]),
        ("Curves", _picture(folder / "curves.png", "Loss, top-1 accuracy and learning rate against epochs.")),
        ("Classes", _csv(folder / "classes.csv")),
        (
            "Confusions",
            [
                *_picture(folder / "confusion.png", "How often images of each class are taken for each other class."),
                *_csv(folder / "confused_pairs.csv", _PAIRS),
            ],
        ),
        ("Calibration", _picture(folder / "reliability.png", "How often the network is right, by what it says.")),
        ("Mistakes", _picture(folder / "mistakes.png", "The most confident mistakes on held-out images.")),
        ("What it looks at", _picture(folder / "grad_cam.png", "Held-out images and what speaks for the answer.")),
        ("Training data", _picture(folder / "samples.png", "Images as training sees them; images of each class.")),
        ("Config", [_rows({name: json.dumps(value) for name, value in flat(run.folder.read_config()).items()})]),
        ("Environment of this page", [_rows(_environment())]),
    ]
    return [(heading, parts) for heading, found in sections if (parts := list(found))]


def _comparison(runs: Mapping[str, TrainedRun]) -> _Sections:
    records = {name: _records(run) for name, run in runs.items()}
    last = {name: _evaluations(found)[-1:] for name, found in records.items()}
    for name, found in last.items():
        if not found:
            raise ConfigError(f"{name} has no evaluation yet")
    facts = {name: _facts(run, records[name]) for name, run in runs.items()}
    # Where a run lies is no part of what it is.
    configs = [flat(asdict(replace(run.config, workdir=None))) for run in runs.values()]
    fields = dict.fromkeys(field for config in configs for field in config)
    cells = [[field, *(json.dumps(c[field]) if field in c else "" for c in configs)] for field in fields]
    differing = [row for row in cells if len(set(row[1:])) > 1]
    curves = Picture(_png(comparison_figure(records)), "Losses and held-out top-1 accuracy of the runs against epochs.")
    return [
        ("Curves", [curves]),
        ("Numbers of the last evaluation", [_numbers({name: found[0] for name, found in last.items()})]),
        (
            "What was trained",
            [Table(("", *runs), [(row, *(of[row] for of in facts.values())) for row in next(iter(facts.values()))])],
        ),
        ("What differs in their configs", [Table(("field", *runs), differing) if differing else "Nothing."]),
    ]


def _records(run: TrainedRun) -> list[dict[str, Any]]:
    records = read_records(run.folder.metrics) if run.folder.metrics.exists() else []
    if not records:
        raise ConfigError(f"{run.folder.path} has no records yet: {run.folder.metrics.name} is empty")
    return records


def _evaluations(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["split"] == "eval"]


def _facts(run: TrainedRun, records: Sequence[Record]) -> dict[str, str]:
    """What was trained, and how long, by name."""
    config, size = run.config, build_preprocessing(run.config, run.model).size
    parameters, macs = cost(run.model, image_size=size, channels=config.data.channels)
    training = [record for record in records if record["split"] == "train"]
    rates = np.array([record["images_per_second"] for record in training])
    images = np.diff([0, *(record["step"] for record in training)]) * config.data.batch_size
    return {
        "model": config.model.name,
        "parameters": f"{parameters:,}",
        "multiply-adds": f"{macs:,} an image of {size}x{size}x{config.data.channels}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "trained": f"{records[-1]['epoch']:,} epochs, {records[-1]['step']:,} steps of {config.data.batch_size} images",
        "throughput": f"{np.median(rates):,.1f} images/s, the median" if training else "",
        "time in training steps": _duration((images / rates).sum()) if training else "",
    }


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _numbers(evaluations: Mapping[str, Record]) -> Table:
    """A row an evaluation, a column a number."""
    names = {**_PERCENT, "loss": "loss", "examples": "examples"}
    shown = [name for name in names if any(name in record for record in evaluations.values())]
    rows = [[which, *(_number(name, record.get(name)) for name in shown)] for which, record in evaluations.items()]
    return Table(("", *(names[name] for name in shown)), rows)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if name in _PERCENT else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _draw_grad_cam(run: TrainedRun, variables: Mapping[str, Any], source: data.Source, path: Path) -> None:
    """Draw what speaks for the answers to images from all over the held-out ones; nothing where there is no map."""
    view = build_preprocessing(run.config, run.model)
    shape = (1, view.size, view.size, view.channels)
    if not feature_maps(run.model, shape):
        return
    chosen = np.unique(np.linspace(0, len(source) - 1, _EXAMPLES).astype(int)).tolist()
    images = np.stack([view(source[i]["image"]) for i in chosen])
    answers = np.asarray(jax.jit(partial(run.model.apply, train=False))(variables, images)).argmax(axis=-1)
    layer = default_layer(run.model, shape)
    heat = np.asarray(jax.jit(partial(grad_cam, run.model, layer=layer))(variables, images, answers))
    labels = [label_text(source, source.labels[i]) for i in chosen]
    captions = [f"is {label}\nsays {source.class_names[a]}" for label, a in zip(labels, answers, strict=True)]
    pixels = to_pixels(images, view.mean, view.std)
    examples_figure(pixels, heat, captions, title=f"Grad-CAM at {layer}").savefig(path)


def _environment() -> dict[str, str]:
    devices = jax.devices()
    return {
        "flaxcnn": flaxcnn.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "host": f"{platform.platform()}, {os.cpu_count()} CPUs",
    }


def _rows(values: Mapping[str, str]) -> Table:
    return Table((), list(values.items()))


def _csv(path: Path, most: int | None = None) -> Iterable[Part]:
    """The first rows of a table of `Details`, where there is one."""
    if path.exists():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))[:most]
        if rows:
            head = [name.replace("_", " ") for name in rows[0]]
            yield Table(head, [[_percent(cell) if n in _SHARES else cell for n, cell in row.items()] for row in rows])


def _percent(number: str) -> str:
    return f"{float(number):.2%}" if number else ""


def _picture(path: Path, alt: str) -> Iterable[Part]:
    """A picture, where there is one."""
    if path.exists():
        yield Picture(path.read_bytes(), alt)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()
