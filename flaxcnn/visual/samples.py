"""What the network sees, as a picture: views of training images, and how many images each class has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxcnn.visual.grid import draw_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's blue, vermilion, green
_MOST_CLASSES = 40


def samples_figure(
    images: np.ndarray, labels: Sequence[str], counts: Mapping[str, Mapping[str, int]], *, columns: int
) -> Figure:
    """A grid of images with their labels, and beside it the class balance.

    Args:
        images: (n, h, w, 3) in [0, 1].
        labels: n names.
        counts: split -> class -> images.
        columns: of the grid.
    """
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.3 * columns + 4.5, max(1.5 * rows, 4)), dpi=110, layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.3 * columns, 4.5))
    left, right = parts
    draw_grid(left, [*images], labels, columns=columns)
    _draw_counts(right.subplots(), counts)
    return figure


def _draw_counts(axes: Any, counts: Mapping[str, Mapping[str, int]]) -> None:
    """A bar a class and split; the largest classes only where there are many."""
    totals = {name: sum(of.get(name, 0) for of in counts.values()) for name in next(iter(counts.values()))}
    # Ties in the order of the classes.
    shown = sorted(totals, key=lambda name: -totals[name])[:_MOST_CLASSES] if len(totals) > _MOST_CLASSES else [*totals]
    height = 0.8 / len(counts)
    for number, (split, of) in enumerate(counts.items()):
        places = np.arange(len(shown)) + (number - (len(counts) - 1) / 2) * height
        axes.barh(places, [of.get(name, 0) for name in shown], height, label=split, color=_COLORS[number % 3])
    axes.set_yticks(np.arange(len(shown)), shown, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("images")
    title = f"the largest {len(shown)} of {len(totals)} classes" if len(shown) < len(totals) else "classes"
    axes.legend(title=title, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(counts), frameon=False)
