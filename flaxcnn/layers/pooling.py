"""Pooling with PyTorch's window arithmetic, over NHWC images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flaxcnn.layers.conv import IntPair, as_pair
from flaxcnn.layers.lowering import conv, lowering_mode


def max_pool(
    x: Array,
    window: IntPair,
    strides: IntPair | None = None,
    padding: IntPair = 0,
    *,
    ceil_mode: bool = False,
) -> Array:
    """`torch.nn.functional.max_pool2d`; of equal values in a window, the first takes the gradient.

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
    windows = _Windows(*_windows(x, window, strides, padding, ceil_mode))
    if lowering_mode() == "xla" or not jnp.issubdtype(x.dtype, jnp.floating) or windows.taps > 25:
        return _max_pool_xla(windows, x)
    return _max_pool(windows, x)


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
    windows = _Windows(*_windows(x, window, strides, padding, ceil_mode))
    total = _sums(windows, x)
    padding = as_pair(padding, "padding", least=0)
    margins = padding if count_include_pad else (0, 0)
    rows, columns = (
        _counts(n, k, s, p, margin, out)
        for n, k, s, p, margin, out in zip(
            x.shape[1:3], windows.size, windows.strides, padding, margins, total.shape[1:3], strict=True
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
    height, width = as_pair(size, "size")
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
    n, h, w, channels = x.shape
    return x.transpose(0, 3, 1, 2).reshape(n, channels * h * w)


class _Windows(NamedTuple):
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    @property
    def taps(self) -> int:
        return self.size[0] * self.size[1]

    def reduce(self, x: Array, initial: Any, combine: Callable[[Array, Array], Array]) -> Array:
        """By XLA's operation. (n, h', w', c)"""
        padding = ((0, 0), *self.padding, (0, 0))
        return lax.reduce_window(x, initial, combine, (1, *self.size, 1), (1, *self.strides, 1), padding)


def _sums(windows: _Windows, x: Array) -> Array:
    """Of what each window sees, (n, h', w', c); on a CPU as a depthwise convolution, whose gradient is the faster.

    By XLA's, the gradients of ShuffleNet V1's three took 13 ms; so, its training step takes 0.97 of the time.
    """

    def xla(x: Array) -> Array:
        return windows.reduce(x, np.zeros((), x.dtype), lax.add)

    def depthwise(x: Array) -> Array:
        ones = jnp.ones((*windows.size, 1, x.shape[3]), x.dtype)
        return conv(x, ones, strides=windows.strides, padding=windows.padding, groups=x.shape[3])

    if lowering_mode() == "xla" or not jnp.issubdtype(x.dtype, jnp.floating) or windows.taps > 25:
        return xla(x)
    return lax.platform_dependent(x, cpu=depthwise, default=xla)


def _max_pool_xla(windows: _Windows, x: Array) -> Array:
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return windows.reduce(x, lowest, lax.max)


# On a CPU, XLA's gradient of this takes forty times as long as a pass over the array; what follows takes four.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(windows: _Windows, x: Array) -> Array:
    return lax.platform_dependent(
        x,
        cpu=lambda x: reduce(jnp.maximum, _taps(windows, x)),
        default=partial(_max_pool_xla, windows),
    )


def _max_pool_gradient(windows: _Windows, x: Array, gradient: Array) -> tuple[Array]:
    def xla(x: Array, gradient: Array) -> Array:
        return jax.vjp(partial(_max_pool_xla, windows), x)[1](gradient)[0]

    return (lax.platform_dependent(x, gradient, cpu=partial(_to_winners, windows), default=xla),)


_max_pool.defvjp(lambda windows, x: (_max_pool(windows, x), x), _max_pool_gradient)


def _taps(windows: _Windows, x: Array) -> Iterator[Array]:
    """What each position of the window sees, row by row, each (n, h', w', c)."""
    padded = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [(0, 0, 0), *((*p, 0) for p in windows.padding), (0, 0, 0)])
    h, w = (
        (size - window) // stride * stride + 1
        for size, window, stride in zip(padded.shape[1:3], windows.size, windows.strides, strict=True)
    )
    for i, j in np.ndindex(windows.size):
        yield padded[:, i : i + h : windows.strides[0], j : j + w : windows.strides[1]]


def _winners(windows: _Windows, x: Array) -> Array:
    """Which tap each window's maximum is. (n, h', w', c), uint8"""
    first, *others = _taps(windows, x)
    best, winner = first, jnp.zeros(first.shape, jnp.uint8)
    for tap, value in enumerate(others, 1):
        better = (value > best) | jnp.isnan(value)
        best, winner = jnp.where(better, value, best), jnp.where(better, jnp.uint8(tap), winner)
    return winner


def _to_winners(windows: _Windows, x: Array, gradient: Array) -> Array:
    """Each window's gradient, given to its winner.

    Row r of the padded input is row `phase + stride * back` of the window `r // stride - back`, phase being
    `r % stride`: for each `back`, every input compares its place in that window with the window's winner.
    """
    (kh, kw), (sh, sw), (h, w) = windows.size, windows.strides, gradient.shape[1:3]
    (top, _), (left, _) = windows.padding
    rows, columns = -(-(top + x.shape[1]) // sh), -(-(left + x.shape[2]) // sw)  # strides that cover the input
    backs_h, backs_w = -(-kh // sh), -(-kw // sw)

    def margins(a: Array, fill: float) -> Array:
        """Windows beyond the edges, where no one wins."""
        edges = [(backs_h - 1, rows - h, 0), (backs_w - 1, columns - w, 0)]
        return lax.pad(a, jnp.asarray(fill, a.dtype), [(0, 0, 0), *edges, (0, 0, 0)])

    winner, gradient = margins(_winners(windows, x), _NO_TAP), margins(gradient, 0)
    total = jnp.zeros((), gradient.dtype)
    for back_h, back_w in np.ndindex(backs_h, backs_w):
        shifted = (
            slice(None),
            slice(backs_h - 1 - back_h, backs_h - 1 - back_h + rows),
            None,
            slice(backs_w - 1 - back_w, backs_w - 1 - back_w + columns),
            None,
        )
        i, j = np.arange(sh)[:, None] + sh * back_h, np.arange(sw) + sw * back_w
        tap = np.where((i < kh) & (j < kw), i * kw + j, _NO_TAP - 1).astype(np.uint8)  # (sh, sw)
        wins = winner[shifted] == tap[None, None, :, None, :, None]  # (n, rows, sh, columns, sw, c)
        total += jnp.where(wins, gradient[shifted], jnp.zeros((), gradient.dtype))
    total = total.reshape(total.shape[0], rows * sh, columns * sw, x.shape[3])
    return total[:, top : top + x.shape[1], left : left + x.shape[2]]


_NO_TAP = 255


def _output_size(n: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    out = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
    # A last window that starts beyond the left-padded input is dropped.
    return out - 1 if ceil_mode and (out - 1) * s >= n + p else out


def _windows(
    x: Array, window: IntPair, strides: IntPair | None, padding: IntPair, ceil_mode: bool
) -> tuple[tuple[int, int], tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    """Window, strides and the (low, high) padding of both axes that makes XLA visit torch's windows."""
    kernel = as_pair(window, "window")
    steps = kernel if strides is None else as_pair(strides, "strides")
    pads = []
    for n, k, s, p in zip(x.shape[1:3], kernel, steps, as_pair(padding, "padding", least=0), strict=True):
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
