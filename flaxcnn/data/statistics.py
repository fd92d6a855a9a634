"""The mean and the deviation of a data set's channels, for normalisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flaxcnn.data.machine import in_threads
from flaxcnn.data.source import Source


def channel_statistics(
    source: Source, view: Callable[..., np.ndarray], *, most: int = 2000
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mean and the standard deviation of each channel over all pixels.

    Args:
        source: the examples.
        view: image -> (h, w, c), as the network sees it.
        most: examples to look at, spread evenly over the source.

    Returns:
        Means (c,) and deviations (c,) in the view's units, and how many examples they are of.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int)).tolist()

    def sums(index: int) -> tuple[int, np.ndarray, np.ndarray]:
        pixels = np.asarray(view(source[index]["image"]), np.float64)
        pixels = pixels.reshape(-1, pixels.shape[-1])  # (h * w, c)
        return len(pixels), pixels.sum(axis=0), (pixels**2).sum(axis=0)

    counts, totals, squares = zip(*in_threads(sums, indices), strict=True)
    mean = np.sum(totals, axis=0) / sum(counts)
    variance = np.sum(squares, axis=0) / sum(counts) - mean**2
    return mean, np.sqrt(np.maximum(variance, 0)), len(indices)
