"""Pooling with PyTorch's window arithmetic, over NHWC images."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flaxcnn.layers.conv import IntPair, as_pair


def max_pool(
    x: Array,
    window: IntPair,
    strides: IntPair | None = None,
    padding: IntPair = 0,
    *,
    ceil_mode: bool = False,
) -> Array:
    """`torch.nn.functional.max_pool2d`.

    Args:
        x: (n, h, w, c).
        window: kernel size.
        strides: None for the window's.
        padding: pixels on every side, at most half the window; padded pixels never win.
        ceil_mode: round the output size up, with windows that overhang the right and lower edge.

    Returns:
        (n, h', w', c).

    Raises:
        ValueError: when no window fits the input.
    """
    window, strides, pads = _windows(x, window, strides, padding, ceil_mode)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))


def avg_pool(
    x: Array,
    window: IntPair,
    strides: IntPair | None = None,
    padding: IntPair = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """`torch.nn.functional.avg_pool2d`.

    Args:
        x: (n, h, w, c).
        window: kernel size.
        strides: None for the window's.
        padding: zeros on every side, at most half the window.
        ceil_mode: round the output size up, with windows that overhang the right and lower edge; what
            overhangs the padding is never counted.
        count_include_pad: whether padded zeros count in the mean.

    Returns:
        (n, h', w', c).

    Raises:
        ValueError: when no window fits the input.
    """
    window, strides, pads = _windows(x, window, strides, padding, ceil_mode)
    total = lax.reduce_window(
        x, np.zeros((), x.dtype), lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )
    margins = as_pair(padding) if count_include_pad else (0, 0)
    rows, columns = (
        _counts(n, k, s, p, margin, out)
        for n, k, s, p, margin, out in zip(
            x.shape[1:3], window, strides, as_pair(padding), margins, total.shape[1:3], strict=True
        )
    )
    return total / jnp.asarray(np.outer(rows, columns)[None, :, :, None], x.dtype)


def adaptive_avg_pool(x: Array, size: IntPair) -> Array:
    """`torch.nn.functional.adaptive_avg_pool2d`: any input size to `size`, up or down.

    Output i averages the inputs floor(i n / size) to ceil((i + 1) n / size).

    Args:
        x: (n, h, w, c).
        size: (h', w') or one int for both.

    Returns:
        (n, h', w', c).
    """
    height, width = as_pair(size)
    if x.shape[1:3] == (height, width):
        return x
    rows = jnp.asarray(_averaging_matrix(x.shape[1], height), x.dtype)
    columns = jnp.asarray(_averaging_matrix(x.shape[2], width), x.dtype)
    return jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)


def global_avg_pool(x: Array) -> Array:
    """Mean over height and width: (n, h, w, c) to (n, c)."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: Array) -> Array:
    """(n, h, w, c) to (n, c h w), in PyTorch's order: channels first."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def _output_size(n: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    out = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
    # A last window that starts beyond the left-padded input is dropped.
    return out - 1 if ceil_mode and (out - 1) * s >= n + p else out


def _windows(
    x: Array, window: IntPair, strides: IntPair | None, padding: IntPair, ceil_mode: bool
) -> tuple[tuple[int, int], tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    """Window, strides and the (low, high) padding of both axes that makes XLA visit torch's windows."""
    kernel = as_pair(window)
    steps = kernel if strides is None else as_pair(strides)
    pads = []
    for n, k, s, p in zip(x.shape[1:3], kernel, steps, as_pair(padding), strict=True):
        if 2 * p > k:
            raise ValueError(f"padding {p} must be at most half the pooling window {k}")
        out = _output_size(n, k, s, p, ceil_mode)
        if out < 1:
            raise ValueError(
                f"an input of {x.shape[1]}x{x.shape[2]} pixels is too small for a "
                f"{kernel[0]}x{kernel[1]} pooling window"
            )
        pads.append((p, max((out - 1) * s + k - n - p, 0)))
    return kernel, steps, (pads[0], pads[1])


def _counts(n: int, k: int, s: int, p: int, margin: int, out: int) -> np.ndarray:
    """How many pixels each of `out` windows averages, those up to `margin` beyond the edge included."""
    starts = np.arange(out) * s - p
    return np.minimum(starts + k, n + margin) - np.maximum(starts, -margin)


def _averaging_matrix(n: int, out: int) -> np.ndarray:
    matrix = np.zeros((out, n))
    for i in range(out):
        start, stop = (i * n) // out, -((-(i + 1) * n) // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
