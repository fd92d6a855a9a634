"""Which parts of an image an answer comes from, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from flaxcnn.visual.grid import grid_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def enlarge(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of a layer at the size of the image.

    Args:
        heat: (h, w).
        size: height and width.

    Returns:
        float32 of that size, interpolated linearly.
    """
    height, width = size
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image that glows where a map is high, and is dim where it is low.

    Args:
        image: (h, w, 3) in [0, 1], or (h, w, 1).
        heat: (h', w'), 0 or more; it is scaled to its largest value.

    Returns:
        (h, w, 3) in [0, 1].
    """
    from matplotlib import colormaps

    share = np.clip(enlarge(heat, (image.shape[0], image.shape[1])) / max(float(heat.max()), 1e-30), 0, 1)
    grey = 0.6 * image.mean(axis=-1, keepdims=True)
    alpha = 0.85 * share[..., None]
    return (1 - alpha) * grey + alpha * colormaps["inferno"](share)[..., :3]


def attribution_figure(image: np.ndarray, heat: np.ndarray, *, title: str) -> Figure:
    """An image, and beside it what speaks for an answer.

    Args:
        image: (h, w, c) in [0, 1]; c is 3, or 1 for grey.
        heat: (h', w'). With values below 0, red speaks for the answer and blue against it.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    if heat.min() < 0:
        most = np.percentile(np.abs(heat), 99.5)
        right.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
        shown = right.imshow(
            enlarge(heat, (image.shape[0], image.shape[1])), cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.7
        )
        figure.colorbar(shown, ax=right, shrink=0.7, label="speaks against … for it")
    else:
        right.imshow(overlay(image, np.minimum(heat, np.percentile(heat, 99.5))))
    for axes in (left, right):
        axes.axis("off")
    figure.suptitle(title, fontsize=9)
    return figure


def examples_figure(images: np.ndarray, heat: np.ndarray, captions: Sequence[str], *, title: str) -> Figure:
    """Images in a row, and below each of them what speaks for an answer.

    Args:
        images: (n, h, w, c) in [0, 1]; c is 3, or 1 for grey.
        heat: (n, h', w'), 0 or more.
        captions: of the images.
        title: of the whole.
    """
    shown = np.broadcast_to(images, (*images.shape[:3], 3))
    glowing = [overlay(image, of) for image, of in zip(images, heat, strict=True)]
    return grid_figure([*shown, *glowing], [*captions, *[""] * len(images)], title=title, columns=len(images))
