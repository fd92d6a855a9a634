"""Ways to compute a 2-D convolution and its two gradients.

A convolution is bilinear in its input and its kernel, so a way to compute it is three functions: the convolution and
its transposes with respect to either operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import ShapedArray

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Everything that the two operands of the convolution or of a transpose leave open."""

    x: ShapedArray  # the operands' types: shape, dtype, and how they lie on devices
    k: ShapedArray
    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int
    input_dilation: Pair = (1, 1)  # 1 + zeros between the entries of the input

    @property
    def input_size(self) -> Pair:
        return self.x.shape[1], self.x.shape[2]

    @property
    def kernel_size(self) -> Pair:
        return self.k.shape[0], self.k.shape[1]

    @property
    def span(self) -> Pair:
        """Rows and columns of the input that one output sees, from the first to the last."""
        (kh, kw), (dh, dw) = self.kernel_size, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def output_size(self) -> Pair:
        h, w = (
            ((size - 1) * spread + 1 + sum(padding) - span) // stride + 1
            for size, spread, padding, span, stride in zip(
                self.input_size, self.input_dilation, self.padding, self.span, self.strides, strict=True
            )
        )
        return max(h, 0), max(w, 0)


class Lowering(NamedTuple):
    """A convolution y = x * k and its transposes, each as `function(geometry, operand, operand)`."""

    forward: Callable[[Geometry, Array, Array], Array]  # (x, k) -> y
    input_gradient: Callable[[Geometry, Array, Array], Array]  # (gradient of y, k) -> gradient of x
    kernel_gradient: Callable[[Geometry, Array, Array], Array]  # (x, gradient of y) -> gradient of k


def _transposed(forward: Callable[[Geometry, Array, Array], Array]) -> Lowering:
    """The lowering whose gradients are JAX's own transposes of `forward`."""

    def input_gradient(geometry: Geometry, y: Array, k: Array) -> Array:
        return jax.linear_transpose(lambda x: forward(geometry, x, k), geometry.x)(y)[0]

    def kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
        return jax.linear_transpose(lambda k: forward(geometry, x, k), geometry.k)(y)[0]

    return Lowering(forward, input_gradient, kernel_gradient)


def _xla(geometry: Geometry, x: Array, k: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        k,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _pointwise(geometry: Geometry, x: Array, k: Array) -> Array:
    """A 1x1 convolution as one matrix product, or one a group."""
    groups, (_, _, channels, c_out), dtype = geometry.groups, k.shape, _accumulator(x)
    x = _window(geometry, _pad(geometry, x), 0, 0)  # (n, h', w', c_in)
    if groups == 1:
        y = jnp.einsum("nhwi,io->nhwo", x, k[0, 0], preferred_element_type=dtype)
    else:
        x = x.reshape(*x.shape[:3], groups, channels)  # (n, h', w', g, i)
        k = k.reshape(channels, groups, c_out // groups)  # (i, g, o)
        y = jnp.einsum("nhwgi,igo->nhwgo", x, k, preferred_element_type=dtype)
    return y.reshape(*y.shape[:3], c_out).astype(x.dtype)


def _dense_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    """For every tap, the shifted input, transposed, times the gradient: summed over blocks of rows.

    It is the gradient that is transposed, once for all taps.
    """
    (sh, _), (dh, _), (kh, kw) = geometry.strides, geometry.dilation, geometry.kernel_size
    padded, rows, dtype = _pad(geometry, x), _block_rows(y.shape), _accumulator(x)

    def add_products(number: Array | int, totals: list[Array]) -> list[Array]:
        x_block = lax.dynamic_slice_in_dim(padded, number * rows * sh, (rows - 1) * sh + (kh - 1) * dh + 1, axis=1)
        y_block = lax.dynamic_slice_in_dim(y, number * rows, rows, axis=1)
        y_block = lax.optimization_barrier(_pixels(y_block).T)
        windows = [_window(geometry, x_block, i, j, (rows, y.shape[2])) for i, j in np.ndindex(kh, kw)]
        products = [jnp.matmul(y_block, _pixels(w), preferred_element_type=dtype) for w in windows]
        return [total + product for total, product in zip(totals, products, strict=True)]

    zeros = jnp.zeros_like(x, shape=(y.shape[3], x.shape[3]), dtype=dtype)
    taps = _over_blocks(y.shape[1] // rows, add_products, [zeros] * (kh * kw))
    return jnp.stack(taps).reshape(kh, kw, y.shape[3], x.shape[3]).swapaxes(2, 3).astype(x.dtype)


def _taps(geometry: Geometry, x: Array, k: Array) -> Array:
    """For every tap, the inputs that it sees times its weights, at the outputs for which it sees any."""
    (sh, sw), (dh, dw), (h, w) = geometry.strides, geometry.dilation, geometry.output_size
    (top, _), (left, _) = geometry.padding
    dtype = x.dtype
    x, k = x.astype(_accumulator(x)), k.astype(_accumulator(x))
    y = zero = jnp.zeros((), x.dtype)
    for i, j in np.ndindex(geometry.kernel_size):
        rows, x_rows = _seen(x.shape[1], h, sh, i * dh - top)
        columns, x_columns = _seen(x.shape[2], w, sw, j * dw - left)
        if rows and columns:
            margins = [(0, 0, 0), (rows[0], h - 1 - rows[-1], 0), (columns[0], w - 1 - columns[-1], 0), (0, 0, 0)]
            y += lax.pad(x[:, x_rows, x_columns] @ k[i, j], zero, margins)
    return jnp.broadcast_to(y, (x.shape[0], h, w, k.shape[3])).astype(dtype)


def _seen(size: int, outputs: int, stride: int, offset: int) -> tuple[range, slice]:
    """The outputs for which a tap lies inside the input, and what it sees there."""
    first = max(0, -(offset // stride))
    stop = min(outputs, (size - 1 - offset) // stride + 1)
    start = first * stride + offset
    return range(first, stop), slice(start, start + (stop - first - 1) * stride + 1, stride)


_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_Tiles = list[list[Array]]
"""What stands in one place of all tiles, by row and column of the place."""


def _winograd(geometry: Geometry, x: Array, k: Array) -> Array:
    """Winograd's F(2x2, 3x3): 16 multiplications for 36 (Lavin and Gray, arXiv:1509.09308).

    The products of 4x4 transformed inputs and kernels make 2x2 outputs; the products of one place of all tiles
    are a matrix product.
    """
    (h, w), ((top, bottom), (left, right)) = geometry.output_size, geometry.padding
    # Tiles are 2 pixels apart and overlap by 2; h % 2 fills up the last row of them.
    x = _pad(geometry._replace(padding=((top, bottom + h % 2), (left, right + w % 2))), x)
    x = lax.optimization_barrier(x)  # XLA would compute what x is made of sixteen times
    rows, columns = x.shape[1] - 3, x.shape[2] - 3
    inputs = _transform(_INPUT, [[x[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)])
    kernels = _transform(_KERNEL, [[k[i, j] for j in range(3)] for i in range(3)])
    products = [[a @ b for a, b in zip(*pair, strict=True)] for pair in zip(inputs, kernels, strict=True)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in _transform(_OUTPUT, products)], axis=2)  # (n, th, 2, tw, 2, o)
    y = y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], k.shape[3])[:, :h, :w]
    return lax.optimization_barrier(y)  # and y for each of its readers


def _transform(matrix: np.ndarray, tiles: _Tiles) -> _Tiles:
    """matrix @ tile @ matrix.T of every tile."""
    by_row = [[_combine(row, column) for column in zip(*tiles, strict=True)] for row in matrix]
    return [[_combine(column, row) for column in matrix] for row in by_row]


def _combine(coefficients: np.ndarray, arrays: Sequence[Array]) -> Array:
    terms = [a if c == 1 else a * jnp.asarray(c, a.dtype) for c, a in zip(coefficients, arrays, strict=True) if c]
    return reduce(add, terms)


def _pointwise_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    """The sum over blocks of rows of the narrower array, transposed, times the wider.

    XLA would transpose the whole array in memory, and compute it, element by element, in the transposed order;
    a block stays in the cache. No loop is over images: a batch that is sharded over devices stays where it is.
    """
    dtype = _accumulator(x)
    x = _window(geometry, _pad(geometry, x), 0, 0)  # (n, h', w', c_in)
    narrow, wide = (x, y) if x.shape[3] <= y.shape[3] else (y, x)
    rows = _block_rows(y.shape)

    def add_product(number: Array | int, total: Array) -> Array:
        a, b = (lax.dynamic_slice_in_dim(array, number * rows, rows, axis=1) for array in (narrow, wide))
        return total + jnp.einsum("nhwa,nhwb->ab", a, b, preferred_element_type=dtype)

    zeros = jnp.zeros_like(x, shape=(narrow.shape[3], wide.shape[3]), dtype=dtype)
    k = _over_blocks(y.shape[1] // rows, add_product, zeros)
    return (k if narrow is x else k.T)[None, None].astype(x.dtype)


def _grouped(geometry: Geometry, x: Array, k: Array) -> Array:
    """The sum over taps of the shifted input times the tap's weights, as one fused loop over the output.

    The loop has a term for every tap and input channel of a group. Above 8 channels XLA's operation is
    faster, if the zeros that spread out a gradient are there in memory.
    """
    dtype = _accumulator(x)
    padded = _pad(geometry, x)
    if k.shape[2] > 8:
        unpadded = geometry._replace(padding=((0, 0), (0, 0)), input_dilation=(1, 1))
        return _xla(unpadded, padded, k)
    k = k.astype(dtype)
    terms = [
        _window(geometry, _spread(channels, k.shape[3]), i, j) * k[i, j, position].reshape(1, 1, 1, -1)
        for position, channels in enumerate(_positions(geometry, padded.astype(dtype)))
        for i, j in np.ndindex(geometry.kernel_size)
    ]
    return reduce(add, terms).astype(x.dtype)


def _grouped_input_gradient(geometry: Geometry, y: Array, k: Array) -> Array:
    """The convolution, at stride 1, of the gradient (spread out by the strides) with the reversed kernel."""
    kh, kw, channels, c_out = k.shape
    k = k[::-1, ::-1].reshape(kh, kw, channels, geometry.groups, -1)  # (kh, kw, i, g, o)
    k = k.swapaxes(2, 4).reshape(kh, kw, c_out // geometry.groups, -1)  # (kh, kw, o, g * i)
    (top, left), (span_h, span_w) = (before for before, _ in geometry.padding), geometry.span
    (h, w), (sh, sw) = geometry.input_size, geometry.strides
    bottom, right = top + h - 1 - (y.shape[1] - 1) * sh, left + w - 1 - (y.shape[2] - 1) * sw
    transposed = geometry._replace(
        x=jax.typeof(y),
        k=jax.typeof(k),
        strides=(1, 1),
        padding=((span_h - 1 - top, bottom), (span_w - 1 - left, right)),
        input_dilation=geometry.strides,
    )
    return _grouped(transposed, y, k)


def _grouped_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    """For every input channel of a group and every tap, the shifted input times the gradient, summed.

    XLA's CPU backend adds elementwise many times faster than it reduces: the rows are added up first. No loop
    is over images: a batch that is sharded over devices stays where it is. Unrolling the kernel's rows too
    would double the time to compile a network.
    """
    dtype, c_out = _accumulator(x), y.shape[3]
    positions = _positions(geometry, _pad(geometry, x.astype(dtype)))
    y_rows = y.astype(dtype)
    (kh, kw), (rows, columns) = geometry.kernel_size, geometry.output_size
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilation

    def position_gradient(channels: Array) -> Array:
        spread = _spread(channels, c_out)

        def kernel_row_gradient(i: Array) -> Array:
            def add_row(row: Array, sums: list[Array]) -> list[Array]:
                x_row = lax.dynamic_index_in_dim(spread, row * sh + i * dh, axis=1, keepdims=False)
                y_row = lax.dynamic_index_in_dim(y_rows, row, axis=1, keepdims=False)
                windows = [x_row[:, j * dw : j * dw + (columns - 1) * sw + 1 : sw] for j in range(kw)]
                return [total + window * y_row for total, window in zip(sums, windows, strict=True)]

            zeros = [jnp.zeros_like(y_rows[:, 0])] * kw  # (n, w', c_out) for every column of the kernel
            sums = lax.fori_loop(0, rows, add_row, zeros)
            return jnp.stack([jnp.sum(total, axis=(0, 1)) for total in sums])

        return lax.map(kernel_row_gradient, jnp.arange(kh))

    k = lax.map(position_gradient, positions)  # (c_in / groups, kh, kw, c_out)
    return jnp.moveaxis(k, 0, 2).astype(x.dtype)


def _block_rows(shape: Sequence[int]) -> int:
    """How many rows of all images to take at a time: few enough for the cache, enough for a matrix product."""
    n, h, w, _ = shape
    if not isinstance(n, int):  # an exported function's symbol
        return 1
    return max(rows for rows in range(1, h + 1) if h % rows == 0 and (rows == 1 or n * rows * w <= 1600))


def _over_blocks(blocks: int, add_block: Callable[[Any, Any], Any], zeros: Any) -> Any:
    """The sum over blocks; a single one needs no loop, and compiles sooner."""
    return add_block(0, zeros) if blocks == 1 else lax.fori_loop(0, blocks, add_block, zeros)


def _accumulator(x: Array) -> jnp.dtype:
    """Half-precision products are added in float32, as XLA's convolutions do."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _pad(geometry: Geometry, x: Array) -> Array:
    (rows, columns), (between_rows, between_columns) = geometry.padding, geometry.input_dilation
    zeros = [(0, 0, 0), (*rows, between_rows - 1), (*columns, between_columns - 1), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), zeros)


def _window(geometry: Geometry, x: Array, i: int, j: int, output_size: Pair | None = None) -> Array:
    """What tap (i, j) sees of the padded input. (n, h', w', c)"""
    (h, w), (sh, sw), (dh, dw) = output_size or geometry.output_size, geometry.strides, geometry.dilation
    return x[:, i * dh : i * dh + (h - 1) * sh + 1 : sh, j * dw : j * dw + (w - 1) * sw + 1 : sw]


def _pixels(x: Array) -> Array:
    """Of all images. (n * h * w, c)"""
    n, h, w, channels = x.shape
    return x.reshape(n * h * w, channels)


def _positions(geometry: Geometry, x: Array) -> Array:
    """Every group's first channel, every group's second, and so on. (c / groups, n, h, w, groups)"""
    channels = x.shape[3] // geometry.groups
    return jnp.moveaxis(x.reshape(*x.shape[:3], geometry.groups, channels), 4, 0)


def _spread(channels: Array, c_out: int) -> Array:
    """A channel of each group, repeated for every output channel of the group. (n, h, w, c_out)"""
    return jnp.repeat(channels, c_out // channels.shape[3], axis=3)


XLA = _transposed(_xla)
POINTWISE = _transposed(_pointwise)._replace(kernel_gradient=_pointwise_kernel_gradient)
DENSE = XLA._replace(kernel_gradient=_dense_kernel_gradient)
TAPS = _transposed(_taps)._replace(kernel_gradient=_dense_kernel_gradient)
WINOGRAD = DENSE._replace(forward=_winograd)
GROUPED_POINTWISE = Lowering(_grouped, _grouped_input_gradient, _transposed(_pointwise).kernel_gradient)
GROUPED = Lowering(_grouped, _grouped_input_gradient, _grouped_kernel_gradient)
