"""Say what a network is made of, what each layer sees of the image, and what it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from flaxcnn.analysis import Layer, Summary, latency, summarize, to_dict
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun
from flaxcnn.config import ConfigError
from flaxcnn.models import Classifier, create_model
from flaxcnn.weights import CHECKPOINTS

DESCRIPTION = """Say what a network is made of, layer by layer, without making its weights.

For each layer: the size of its output, kernel and stride, parameters, multiply-adds (MACs), the memory of its output
(float32, one image), and what a unit of the output sees: the pixels of its receptive field along an axis, how far the
fields of two neighbours are apart, and the middle of the first one's (0.5 is the middle of the first pixel).

The formulas behind the table, for numbers of your own: arithmetic --help."""


def main(argv: Sequence[str]) -> int:
    """`summarize --model NAME | --compare NAME ... | --workdir DIR [--image-size N] [--json]`."""
    parser = Parser("summarize", DESCRIPTION)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="NAME", help="one of flaxcnn.list_models()")
    which.add_argument("--workdir", metavar="DIR", help="the network of a run's folder")
    which.add_argument(
        "--compare",
        metavar="NAME",
        nargs="+",
        help="models side by side, with the milliseconds that an image takes, measured here, and the published top-1",
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="height and width in pixels (default: the model's)")
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs of a model (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print a JSON object, with every number")
    known = parser.parse_args(argv)
    if known.image_size is not None and known.image_size < 1:
        raise ConfigError(f"--image-size must be 1 or more, not {known.image_size}")
    if known.workdir is not None and known.num_classes is not None:
        raise ConfigError("--num-classes is for --model and --compare: a run has its data's classes")
    set_up_jax("auto" if known.compare else "cpu")
    classes = 1000 if known.num_classes is None else known.num_classes
    if known.compare:
        rows = [_compared(name, _model(name, classes), known.image_size) for name in known.compare]
        print(json.dumps({"models": rows}) if known.json else "\n".join(_comparison(rows)))
        return 0
    channels = 3
    if known.workdir is not None:
        run = TrainedRun.read(known.workdir)
        name, model, channels = run.config.model.name, run.model, run.config.data.channels
    else:
        name, model = known.model, _model(known.model, classes)
    summary = _summary(model, known.image_size, channels)
    print(json.dumps({"model": name, **to_dict(summary)}) if known.json else "\n".join(_table(name, summary, channels)))
    return 0


def _model(name: str, num_classes: int) -> Classifier:
    try:
        return create_model(name, num_classes=num_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _summary(model: Classifier, image_size: int | None, channels: int = 3) -> Summary:
    try:
        return summarize(model, image_size=image_size, channels=channels)
    except ValueError as error:
        raise ConfigError(f"--image-size: {error}") from error


def _table(name: str, summary: Summary, channels: int) -> list[str]:
    head = ("layer", "kind", "output", "kernel", "stride", "parameters", "MACs", "memory", "field", "jump", "centre")
    lines = _aligned([head, *map(_row, summary.layers)], left=2)
    inside = sum(layer.parameters for layer in summary.layers)
    rest = summary.parameters - inside
    return [
        *lines,
        "",
        f"{name}, one image of {summary.image_size}x{summary.image_size}x{channels}",
        f"parameters   {summary.parameters:,} ({_megabytes(4 * summary.parameters)} in float32)"
        + (f", of which {rest:,} in auxiliary heads, for training only" if rest else ""),
        f"MACs         {summary.macs:,} ({summary.macs / 1e9:.3f} G)",
        f"activations  {_megabytes(summary.activation_bytes)}: what the layers above put out",
    ]


def _row(layer: Layer) -> tuple[str, ...]:
    sees = ("image", "", "")
    if layer.field is not None:
        sizes, jumps, centres = zip(*((f"{a.size}", f"{a.jump}", f"{a.centre:g}") for a in layer.field), strict=True)
        sees = (_pair(sizes), _pair(jumps), _pair(centres))
    return (
        layer.name,
        layer.kind,
        "x".join(map(str, layer.output)),
        _pair(layer.kernel),
        _pair(layer.stride),
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs:,}" if layer.macs else "",
        f"{layer.activation_bytes / 1e3:,.1f} kB",
        *sees,
    )


def _pair(values: Sequence[Any] | None) -> str:
    """Of rows and columns: once where they are equal."""
    return "x".join(map(str, values if values[0] != values[1] else values[:1])) if values else ""


def _compared(name: str, model: Classifier, image_size: int | None) -> dict[str, Any]:
    summary = _summary(model, image_size)
    print(f"measuring {name} ...", file=sys.stderr)
    published = [row for row in CHECKPOINTS if row.model == name]
    return {
        "model": name,
        "image_size": summary.image_size,
        "parameters": summary.parameters,
        "macs": summary.macs,
        "activation_bytes": summary.activation_bytes,
        "latency": latency(model, image_size=image_size),
        "top1": max((row.top1 for row in published if row.top1 is not None), default=None),
    }


def _comparison(rows: list[dict[str, Any]]) -> list[str]:
    head = ("model", "image", "parameters", "MACs (M)", "weights", "activations", "ms an image", "ImageNet top-1")
    cells = [
        (
            row["model"],
            str(row["image_size"]),
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:,.1f}",
            _megabytes(4 * row["parameters"]),
            _megabytes(row["activation_bytes"]),
            f"{1e3 * row['latency']:.1f}",
            "" if row["top1"] is None else f"{row['top1']:.2f} %",
        )
        for row in rows
    ]
    return _aligned([head, *cells], left=1)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _aligned(rows: list[tuple[str, ...]], *, left: int) -> list[str]:
    """Rows in columns, the first `left` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'<' if index < left else '>'}{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
