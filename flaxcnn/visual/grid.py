"""Pictures in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 22


def shorten(name: str, longest: int = _LONGEST) -> str:
    """A name cut to a number of characters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def draw_grid(figure: Any, images: Sequence[np.ndarray], titles: Sequence[str], *, columns: int, **style: Any) -> None:
    """Fill a figure, or a part of one, with images and their titles.

    Args:
        figure: a matplotlib Figure or SubFigure.
        images: (h, w, 3) in [0, 1], or (h, w) of numbers that get a colour.
        titles: as many; each of its lines is cut where it is long.
        columns: of the grid.
        style: of `imshow`.
    """
    rows = -(-len(images) // columns)
    places = np.ravel(figure.subplots(rows, columns))
    for axes in places:
        axes.axis("off")
    for axes, image, title in zip(places[: len(images)], images, titles, strict=True):
        axes.imshow(image, interpolation="nearest", **style)
        axes.set_title("\n".join(map(shorten, title.split("\n"))), fontsize=7, pad=2, parse_math=False)


def grid_figure(
    images: Sequence[np.ndarray], titles: Sequence[str], *, title: str, columns: int = 8, **style: Any
) -> Figure:
    """A grid of images with a title over it.

    Args:
        images: (h, w, 3) in [0, 1], or (h, w) of numbers that get a colour; at least one.
        titles: as many, of one line or several.
        title: of the whole.
        columns: of the grid; fewer where there are fewer images.
        style: of `imshow`.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(text.count("\n") + 1 for text in titles)
    figure = Figure(figsize=(max(1.35 * columns, 4), (1.35 + 0.13 * lines) * rows + 0.5), dpi=110, layout="constrained")
    draw_grid(figure, images, titles, columns=columns, **style)
    figure.suptitle(title, fontsize=10)
    return figure
