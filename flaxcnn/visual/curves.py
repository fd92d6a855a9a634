"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion: told apart by the colour-blind and in greyscale.
_COLORS = {"train": "#0072B2", "eval": "#D55E00"}
_NAMES = {"train": "training", "eval": "held out"}
# Theirs without yellow, which is hard to see on white, and black for the first.
_PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_STYLES = ("-", "--", ":", "-.")
# Part of a curve's points that a point of its moving average is the mean of.
_WINDOW = 1 / 20


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path, *, steps_per_epoch: float) -> None:
    """Draw loss, top-1 accuracy and learning rate against epochs.

    Args:
        records: of a run, as `metrics.jsonl` holds them; at least one.
        path: of the PNG to write.
        steps_per_epoch: of the run.
    """
    # The object-oriented face of matplotlib: no display, no global state.
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(12, 4), dpi=120, layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for split in ("train", "eval"):
        own = [record for record in records if record["split"] == split]
        for axes, name in ((loss, "loss"), (accuracy, "top1")):
            axes.plot(
                [record["step"] / steps_per_epoch for record in own],
                [record[name] for record in own],
                color=_COLORS[split],
                label=_NAMES[split],
                linewidth=1.5 if split == "eval" else 1.0,
                marker="o" if split == "eval" else None,
                markersize=3,
            )
    training = [record for record in records if record["split"] == "train"]
    steps, means = moving_average([r["step"] for r in training], [r["loss"] for r in training])
    if means:
        epochs = [step / steps_per_epoch for step in steps]
        loss.plot(epochs, means, color="black", linewidth=1.5, label="training, moving average")
    rate.plot([r["step"] / steps_per_epoch for r in training], [r["learning_rate"] for r in training], color="#444444")
    loss.set(ylabel="loss (cross-entropy)", ylim=(0, None))
    accuracy.set(ylabel="top-1 accuracy", ylim=(None, 1))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    rate.set(ylabel="learning rate", ylim=(0, None))
    _leave_outliers_out(loss, records)
    for axes in (loss, accuracy, rate):
        axes.set(xlabel="epoch", xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.legend(frameon=False, loc="lower right")
    loss.legend(frameon=False, loc="upper right")
    last = [record for record in records if record["split"] == "eval"][-1:]
    for record in last:
        accuracy.set_title(f"held out: {record['top1']:.2%} at epoch {record['epoch']}", fontsize=10)
    figure.savefig(path)


def comparison_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training loss, held-out loss and held-out top-1 accuracy of several runs against epochs.

    Args:
        runs: name -> records, as `metrics.jsonl` holds them; at least one each.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    # The legend stands below, with a line a run: names of runs are long.
    figure = Figure(figsize=(12, 4 + 0.2 * len(runs)), dpi=120, layout="constrained")
    places = figure.subplots(1, 3)
    panels = (
        ("train", "loss", "training loss (cross-entropy)"),
        ("eval", "loss", "held-out loss (cross-entropy)"),
        ("eval", "top1", "held-out top-1 accuracy"),
    )
    for axes, (split, name, title) in zip(places, panels, strict=True):
        for number, (run, records) in enumerate(runs.items()):
            length = epoch_length(records)
            own = [record for record in records if record["split"] == split]
            axes.plot(
                [record["step"] / length for record in own],
                [record[name] for record in own],
                color=_PALETTE[number % len(_PALETTE)],
                linestyle=_STYLES[number // len(_PALETTE) % len(_STYLES)],
                linewidth=1.2,
                label=run,
            )
        axes.set(xlabel="epoch", ylabel=title, xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    places[2].yaxis.set_major_formatter(PercentFormatter(1))
    legend = figure.legend(*places[0].get_legend_handles_labels(), frameon=False, loc="outside lower left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def epoch_length(records: Sequence[Mapping[str, Any]]) -> float:
    """The steps of an epoch, by records of which one stands at an epoch's end, as evaluations do."""
    return max(record["step"] / record["epoch"] for record in records)


def moving_average(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of as many values in turn as make a twentieth of them, at the middle of their steps.

    Returns:
        The steps and the means; of fewer than 40 values none, since that many are no noisier.
    """
    width = int(len(values) * _WINDOW)
    if width < 2:
        return [], []
    windows = range(len(values) - width + 1)
    middles = [sum(steps[i : i + width]) / width for i in windows]
    return middles, [sum(values[i : i + width]) / width for i in windows]


def _leave_outliers_out(loss: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """Keep one wild evaluation, while BatchNorm's statistics settle, from pressing all curves flat."""
    of_split = {split: [r["loss"] for r in records if r["split"] == split] for split in ("train", "eval")}
    highest, worst = max(of_split["train"], default=float("inf")), max(of_split["eval"], default=0.0)
    if worst > 2 * highest:
        loss.set_ylim(0, 1.1 * highest)
        loss.set_title(f"held out: up to {worst:.1f}, beyond the axis", fontsize=10)
