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

from flaxcnn.layers.once import once

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
    """A 1x1 convolution as one matrix product."""
    x = _window(geometry, _pad(geometry, x), 0, 0)  # (n, h', w', c_in)
    return jnp.einsum("nhwi,io->nhwo", x, k[0, 0], preferred_element_type=_accumulator(x)).astype(x.dtype)


def _im2col(geometry: Geometry, x: Array, k: Array) -> Array:
    """What every output sees, as the rows of a matrix, times the kernel: for blocks of rows that stay in the cache."""
    (kh, kw, c_in, c_out), (n, h, w) = k.shape, (x.shape[0], *geometry.output_size)
    padded, rows = _pad(geometry, x), _block_rows((n, h, w))

    def block(number: Array | int) -> Array:
        seen = _fill_with_windows(geometry, padded, number, jnp.zeros_like(x, shape=(n, rows, w, kh * kw, c_in)))
        return jnp.einsum("nhwti,tio->nhwo", seen, k.reshape(-1, c_in, c_out))

    def put_block(number: Array, y: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(y, block(number), number * rows, axis=1)

    if rows == h:
        return block(0)
    return lax.fori_loop(0, h // rows, put_block, jnp.zeros_like(x, shape=(n, h, w, c_out)))


def _col2im(geometry: Geometry, y: Array, k: Array) -> Array:
    """The gradient times the kernel, transposed, and for every input the sum over the taps that see it.

    The inputs that leave the same rests when their places are divided by the strides are seen by the same taps.
    """
    (n, *size, c_out), (kh, kw, c_in, _) = y.shape, k.shape
    products = jnp.einsum("nhwo,to->nhwt", y, k.reshape(-1, c_out)).reshape(n, *size, kh, kw, c_in)
    products, zero = lax.optimization_barrier(products), jnp.zeros((), y.dtype)
    h, w = (-(-size // stride) for size, stride in zip(geometry.input_size, geometry.strides, strict=True))

    def sum_over_taps(row: int, column: int) -> Array:
        total = jnp.zeros_like(y, shape=(n, h, w, c_in))
        for i, top in _taps_that_see(geometry, 0, row):
            for j, left in _taps_that_see(geometry, 1, column):
                margins = [(0, 0, 0), (-top, h + top - size[0], 0), (-left, w + left - size[1], 0), (0, 0, 0)]
                total += lax.pad(products[:, :, :, i, j], zero, margins)
        return total

    sh, sw = geometry.strides
    x = jnp.stack([jnp.stack([sum_over_taps(i, j) for j in range(sw)], axis=3) for i in range(sh)], axis=2)
    return x.reshape(n, sh * h, sw * w, c_in)[:, : geometry.input_size[0], : geometry.input_size[1]]


def _taps_that_see(geometry: Geometry, axis: int, rest: int) -> list[tuple[int, int]]:
    """The taps that see the inputs of a rest, and by how much the output that does is ahead of the quotient."""
    stride, spread, (before, _) = geometry.strides[axis], geometry.dilation[axis], geometry.padding[axis]
    offsets = [(tap, rest + before - tap * spread) for tap in range(geometry.kernel_size[axis])]
    return [(tap, offset // stride) for tap, offset in offsets if offset % stride == 0]


def _dense_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    """For every tap, the gradient, transposed, times what the tap sees: summed over blocks of rows.

    Of few channels, for every row of the kernel: narrow products are slow.
    """
    return (_gradient_by_kernel_row if x.shape[3] <= 64 else _gradient_by_tap)(geometry, x, y)


def _gradient_by_kernel_row(geometry: Geometry, x: Array, y: Array) -> Array:
    (n, h, w, c_out), c_in, (kh, kw) = y.shape, x.shape[3], geometry.kernel_size
    padded, rows, dtype = _pad(geometry, x), _block_rows((n, h, w)), _accumulator(x)
    if rows == 2 < h:  # LLVM unrolls loops over two rows, and for all the taps' takes twice as long
        rows = 1

    def add_products(number: Array | int, totals: list[Array]) -> list[Array]:
        seen, y_block = _rows_seen(geometry, padded, number, rows), _transposed_block(y, number, rows)

        def product(i: int) -> Array:
            windows = [_window(geometry, seen, i, j, (rows, w)) for j in range(kw)]
            return jnp.matmul(y_block, _pixels(jnp.concatenate(windows, axis=3)), preferred_element_type=dtype)

        return [total + product(i) for i, total in enumerate(totals)]

    zeros = jnp.zeros_like(x, shape=(c_out, kw * c_in), dtype=dtype)
    k = jnp.stack(_over_blocks(h // rows, add_products, [zeros] * kh))
    return k.reshape(kh, c_out, kw, c_in).transpose(0, 2, 3, 1).astype(x.dtype)


def _gradient_by_tap(geometry: Geometry, x: Array, y: Array) -> Array:
    """In a loop over the taps: as fast as unrolled, and a network compiles sooner."""
    (n, h, w, c_out), c_in, (kh, kw) = y.shape, x.shape[3], geometry.kernel_size
    padded, rows, dtype = _pad(geometry, x), _block_rows((n, h, w)), _accumulator(x)

    def add_products(number: Array | int, totals: Array) -> Array:
        y_block = _transposed_block(y, number, rows)

        def add_product(tap: Array, totals: Array) -> Array:
            seen = _pixels(_window_of_tap(geometry, padded, tap, number, rows))
            product = jnp.matmul(y_block, seen, preferred_element_type=dtype)
            if rows != h:  # of an exported function, h may be a symbol
                product += lax.dynamic_index_in_dim(totals, tap, keepdims=False)
            return lax.dynamic_update_index_in_dim(totals, product, tap, axis=0)

        return lax.fori_loop(0, kh * kw, add_product, totals)

    k = _over_blocks(h // rows, add_products, jnp.zeros_like(x, shape=(kh * kw, c_out, c_in), dtype=dtype))
    return k.reshape(kh, kw, c_out, c_in).swapaxes(2, 3).astype(x.dtype)


def _transposed_block(y: Array, number: Array | int, rows: int) -> Array:
    """The pixels of a block of rows. (c, n * rows * w)"""
    block = lax.dynamic_slice_in_dim(y, number * rows, rows, axis=1)
    return lax.optimization_barrier(_pixels(block).T)


def _rows_seen(geometry: Geometry, padded: Array, number: Array | int, rows: int) -> Array:
    """The rows of the padded input that a block of rows of the output sees."""
    stride, span = geometry.strides[0], geometry.span[0]
    return lax.dynamic_slice_in_dim(padded, number * rows * stride, (rows - 1) * stride + span, axis=1)


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


def _winograd_input_gradient(geometry: Geometry, y: Array, k: Array) -> Array:
    return _winograd(*_transposed_convolution(geometry, y, k))


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
    rows = _block_rows(y.shape[:3])

    def add_product(number: Array | int, total: Array) -> Array:
        a, b = (lax.dynamic_slice_in_dim(array, number * rows, rows, axis=1) for array in (narrow, wide))
        return total + jnp.einsum("nhwa,nhwb->ab", a, b, preferred_element_type=dtype)

    zeros = jnp.zeros_like(x, shape=(narrow.shape[3], wide.shape[3]), dtype=dtype)
    k = _over_blocks(y.shape[1] // rows, add_product, zeros)
    if narrow is not x:
        # XLA would take the transposition into a product of bfloat16, which it then cannot compute.
        k = (k if k.dtype == x.dtype else lax.optimization_barrier(k)).T
    return k[None, None].astype(x.dtype)


def _grouped(geometry: Geometry, x: Array, k: Array) -> Array:
    """The sum over taps of the shifted input times the tap's weights, as one fused loop over the output.

    The loop has a term for every tap and input channel of a group.
    """
    padded, k = _pad(geometry, x).astype(_accumulator(x)), k.astype(_accumulator(x))
    terms = [
        _window(geometry, _spread(channels, k.shape[3]), i, j) * k[i, j, position].reshape(1, 1, 1, -1)
        for position, channels in enumerate(_positions(geometry, padded))
        for i, j in np.ndindex(geometry.kernel_size)
    ]
    return reduce(add, terms).astype(x.dtype)


def _grouped_input_gradient(geometry: Geometry, y: Array, k: Array) -> Array:
    return _grouped(*_transposed_convolution(geometry, y, k))


def _transposed_convolution(geometry: Geometry, y: Array, k: Array) -> tuple[Geometry, Array, Array]:
    """The input gradient as a convolution, at stride 1, of the gradient (spread out by the strides).

    The kernel is reversed, and its outputs are the inputs.
    """
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
    return transposed, y, k


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

    if positions.shape[0] == 1:  # a loop would copy the input
        return position_gradient(positions[0])[:, :, None].astype(x.dtype)
    k = lax.map(position_gradient, positions)  # (c_in / groups, kh, kw, c_out)
    return jnp.moveaxis(k, 0, 2).astype(x.dtype)


def _blocked(geometry: Geometry, x: Array, k: Array) -> Array:
    """A dense convolution for every block of neighbouring groups, with zeros for the weights between groups."""
    return _by_block(geometry, _lowering_of_blocks(geometry).forward, x, k)


def _blocked_input_gradient(geometry: Geometry, y: Array, k: Array) -> Array:
    return _by_block(geometry, _lowering_of_blocks(geometry).input_gradient, y, k)


def _by_block(
    geometry: Geometry, function: Callable[[Geometry, Array, Array], Array], images: Array, k: Array
) -> Array:
    """`function` of every block of channels of the images and the block's kernel."""
    blocks = _number_of_blocks(geometry)
    kernels, parts = _block_kernels(geometry, k, blocks), jnp.split(images, blocks, axis=3)
    of_block = _geometry_of_block(geometry, blocks)
    return jnp.concatenate([function(of_block, part, kernel) for part, kernel in zip(parts, kernels, strict=True)], 3)


def _blocked_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    blocks = _number_of_blocks(geometry)
    of_block, function = _geometry_of_block(geometry, blocks), _lowering_of_blocks(geometry).kernel_gradient
    (kh, kw, channels, c_out), groups = geometry.k.shape, geometry.groups
    shape = (kh, kw, groups // blocks, channels, groups // blocks, c_out // groups)
    gradients = [
        jnp.diagonal(function(of_block, *pair).reshape(shape), axis1=2, axis2=4)  # (kh, kw, i, o, groups)
        for pair in zip(jnp.split(x, blocks, axis=3), jnp.split(y, blocks, axis=3), strict=True)
    ]
    return jnp.concatenate(gradients, axis=4).swapaxes(3, 4).reshape(geometry.k.shape)


def _number_of_blocks(geometry: Geometry) -> int:
    """So many that a block has 32 input channels or more: with fewer, products are slow; with more, full of zeros.

    At most 16, for the time to compile.
    """
    groups, channels = geometry.groups, geometry.k.shape[2]
    return max(n for n in range(1, 17) if groups % n == 0 and (n == 1 or groups // n * channels >= 32))


def _geometry_of_block(geometry: Geometry, blocks: int) -> Geometry:
    n, h, w, c_in = geometry.x.shape
    kh, kw, _, c_out = geometry.k.shape
    x = geometry.x.update(shape=(n, h, w, c_in // blocks))
    return geometry._replace(x=x, k=geometry.k.update(shape=(kh, kw, c_in // blocks, c_out // blocks)), groups=1)


def _block_kernels(geometry: Geometry, k: Array, blocks: int) -> Array:
    """(blocks, kh, kw, c_in / blocks, c_out / blocks)"""
    kh, kw, channels, c_out = k.shape
    groups = geometry.groups // blocks
    k = k.reshape(kh, kw, channels, blocks, groups, -1).transpose(3, 0, 1, 2, 4, 5)  # (b, kh, kw, i, g, o)
    k = jnp.where(jnp.eye(groups, dtype=bool).reshape(1, 1, 1, groups, 1, groups, 1), k[:, :, :, None], 0)
    return k.reshape(blocks, kh, kw, groups * channels, c_out // blocks)


def _lowering_of_blocks(geometry: Geometry) -> Lowering:
    return POINTWISE if geometry.kernel_size == (1, 1) else DENSE


def _stem(geometry: Geometry, x: Array, k: Array) -> Array:
    """The sum over taps and the few input channels, as one fused loop over the output.

    Once: without a normalisation behind it, the loops of VGG's ReLU and pool, and of what they read for their
    gradients, would each contain it.
    """
    dtype = _accumulator(x)
    padded, k = lax.optimization_barrier(_pad(geometry, x.astype(dtype))), k.astype(dtype)
    terms = [
        _window(geometry, padded, i, j)[..., c : c + 1] * k[i, j, c].reshape(1, 1, 1, -1)
        for i, j in np.ndindex(geometry.kernel_size)
        for c in range(k.shape[2])
    ]
    return once(reduce(add, terms)).astype(x.dtype)


def _stem_kernel_gradient(geometry: Geometry, x: Array, y: Array) -> Array:
    """What every output sees, as the rows of a matrix, transposed, times the gradient: summed over blocks of rows."""
    (kh, kw, c_in, c_out), (n, h, w, _) = geometry.k.shape, y.shape
    geometry, x = _with_columns_as_channels(geometry, x)
    taps, channels = kh * geometry.kernel_size[1], x.shape[3]
    rows = _block_rows((n, h, w), pixels=600_000 // (taps * channels))
    padded, dtype = _pad(geometry, x), _accumulator(x)

    def add_product(number: Array | int, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        total, matrix = sums
        matrix = _fill_with_windows(geometry, padded, number, matrix)
        y_block = lax.dynamic_slice_in_dim(y, number * rows, rows, axis=1)
        seen = matrix.reshape(n * rows * w, taps * channels)
        product = jnp.einsum("pt,po->to", seen, _pixels(y_block), preferred_element_type=dtype)
        return total + product, matrix  # whose memory the next block takes again

    zeros = jnp.zeros_like(x, shape=(taps * channels, c_out), dtype=dtype)
    k, _ = _over_blocks(h // rows, add_product, (zeros, jnp.zeros_like(x, shape=(n, rows, w, taps, channels))))
    return k.reshape(kh, -1, c_in, c_out)[:, :kw].astype(x.dtype)


def _with_columns_as_channels(geometry: Geometry, x: Array) -> tuple[Geometry, Array]:
    """The same convolution over columns that hold as many of the image's as the stride, of a narrower kernel.

    More channels for fewer columns: what an output sees is copied in longer pieces.
    """
    (n, h, w, c_in), (kh, kw, _, c_out), stride = x.shape, geometry.k.shape, geometry.strides[1]
    if stride == 1 or geometry.dilation[1] > 1:
        return geometry, x
    width, (left, _) = -(-kw // stride), geometry.padding[1]
    columns = (geometry.output_size[1] + width - 1) * stride
    margins = [(0, 0, 0), (0, 0, 0), (left, columns - left - w, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), margins).reshape(n, h, columns // stride, stride * c_in)
    k = geometry.k.update(shape=(kh, width, stride * c_in, c_out))
    strides, padding = (geometry.strides[0], 1), (geometry.padding[0], (0, 0))
    return geometry._replace(x=jax.typeof(x), k=k, strides=strides, padding=padding), x


def _block_rows(shape: Sequence[int], pixels: int = 1600) -> int:
    """How many rows of all images to take at a time: few enough for the cache, enough for a matrix product."""
    n, h, w = shape
    if not all(isinstance(extent, int) for extent in shape):  # an exported function's symbols
        return 1
    return max(rows for rows in range(1, h + 1) if h % rows == 0 and (rows == 1 or n * rows * w <= pixels))


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


def _window_of_tap(geometry: Geometry, padded: Array, tap: Array, number: Array | int, rows: int) -> Array:
    """What a tap that a loop counts sees of the padded input, at a block of rows of the output. (n, rows, w', c)"""
    (n, _, _, channels), (_, w) = padded.shape, geometry.output_size
    (_, kw), (sh, sw), (dh, dw) = geometry.kernel_size, geometry.strides, geometry.dilation
    corner = (0, number * rows * sh + lax.div(tap, kw) * dh, lax.rem(tap, kw) * dw, 0)
    seen = lax.dynamic_slice(padded, corner, (n, (rows - 1) * sh + 1, (w - 1) * sw + 1, channels))
    return seen[:, ::sh, ::sw]


def _fill_with_windows(geometry: Geometry, padded: Array, number: Array | int, matrix: Array) -> Array:
    """The matrix (n, rows, w', taps, c), with what every output of a block of rows sees.

    By a loop over the taps: unrolled, they take long to compile.
    """

    def put_window(tap: Array, matrix: Array) -> Array:
        window = _window_of_tap(geometry, padded, tap, number, matrix.shape[1])
        return lax.dynamic_update_slice_in_dim(matrix, window[:, :, :, None], tap, axis=3)

    return lax.fori_loop(0, matrix.shape[3], put_window, matrix)


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
COL2IM = DENSE._replace(input_gradient=_col2im)
IM2COL = COL2IM._replace(forward=_im2col)
TAPS = _transposed(_taps)._replace(kernel_gradient=_dense_kernel_gradient)
WINOGRAD = Lowering(_winograd, _winograd_input_gradient, _dense_kernel_gradient)
STEM = XLA._replace(forward=_stem, kernel_gradient=_stem_kernel_gradient)
WIDE_STEM = XLA._replace(kernel_gradient=_stem_kernel_gradient)
GROUPED = Lowering(_grouped, _grouped_input_gradient, _grouped_kernel_gradient)
BLOCKED = Lowering(_blocked, _blocked_input_gradient, _blocked_kernel_gradient)
