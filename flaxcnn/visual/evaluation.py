"""An evaluation as pictures: which classes are taken for which, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxcnn.metrics import Calibration
from flaxcnn.visual.grid import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _VERMILION = "#0072B2", "#D55E00"  # Okabe and Ito's
_CELL = 0.4  # inches, where there is room
_SMALLEST_FONT = 5.0  # points
_MOST_NAMES = 60  # on an axis
_DPI = 120


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str]) -> Figure:
    """A confusion matrix: names and numbers where they fit, else colours on a logarithmic scale.

    Args:
        confusion: (classes, classes), a row a label, a column a prediction.
        class_names: in that order.
    """
    from matplotlib.figure import Figure

    n = len(class_names)
    # Every cell is a pixel at least, so that a single mistake among a thousand classes is seen.
    side = max(min(max(n * _CELL, 2.5), 9.0), n * 1.05 / _DPI)
    figure = Figure(figsize=(side + 2.5, side + 1.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    font = _font_that_fits(confusion, 72 * side / n)
    if font >= _SMALLEST_FONT:
        _draw_shares(axes, confusion, font)
    else:
        _draw_counts(figure, axes, confusion, pixels=_DPI * side / n)
    if n <= _MOST_NAMES:
        names = [shorten(name) for name in class_names]
        style: Any = {"fontsize": min(9.0, 72 * side / n * 0.9), "parse_math": False}
        axes.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 2 else 0, **style)
        axes.set_yticks(range(n), names, **style)
    right = np.trace(confusion) / max(confusion.sum(), 1)
    axes.set_title(f"{n} classes, {confusion.sum():,} images, {right:.2%} right", fontsize=10)
    unit = "" if n <= _MOST_NAMES else ", by number"
    axes.set(xlabel=f"predicted class{unit}", ylabel=f"true class{unit}")
    return figure


def _font_that_fits(confusion: np.ndarray, cell: float) -> float:
    """The size at which the longest count is as wide as a cell, in points; a digit is 0.6 wide."""
    return min(9.0, cell * 0.9 / (0.6 * len(str(confusion.max()))))


def _draw_shares(axes: Any, confusion: np.ndarray, font: float) -> None:
    """Counts in cells that are as dark as their share of the row."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=font)


def _draw_counts(figure: Figure, axes: Any, confusion: np.ndarray, *, pixels: float) -> None:
    """Colours of counts, in cells of so many pixels."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm
    from scipy.ndimage import maximum_filter

    # Without its paler half: a single mistake must stand out from the white of none.
    blues = ListedColormap(colormaps["Blues"](np.linspace(0.5, 1, 256)))
    if pixels < 2:
        # Where a cell is a speck, a mistake takes the empty ones around it too, and what is right takes none.
        mistakes = confusion * ~np.eye(len(confusion), dtype=bool)
        confusion = np.where(confusion > 0, confusion, maximum_filter(mistakes, 3))
    shown = np.ma.masked_equal(confusion, 0)
    norm = LogNorm(1, max(confusion.max(), 2))
    image = axes.imshow(shown, cmap=blues, norm=norm, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="images (none: white)", format="{x:,.0f}")


def reliability_figure(calibration: Calibration) -> Figure:
    """A reliability diagram, and under it how often each probability is said.

    Args:
        calibration: from `flaxcnn.metrics.calibration`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(5, 5.5), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    left, width = calibration.edges[:-1], np.diff(calibration.edges)
    above.bar(left, np.nan_to_num(calibration.accuracy), width, align="edge", color=_BLUE, edgecolor="white")
    above.plot([0, 1], [0, 1], color="#444444", linestyle="--", linewidth=1, label="well calibrated")
    above.plot(calibration.confidence, calibration.accuracy, "o", color=_VERMILION, markersize=4, label="bins' means")
    below.bar(left, calibration.predictions, width, align="edge", color=_BLUE, edgecolor="white")
    above.set_title(f"expected calibration error {calibration.ece:.2%}, {len(width)} bins of equal width", fontsize=10)
    above.set(ylabel="how often it is right", xlim=(0, 1), ylim=(0, 1))
    below.set(xlabel="probability of the prediction", ylabel="predictions")
    for axis in (above.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(frameon=False, loc="upper left")
    return figure
