"""`conv` against `lax.conv_general_dilated`, whatever the shape, transformation or mode."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from flaxcnn.layers import conv_algorithms, lowering
from flaxcnn.layers.conv_algorithms import Geometry
from flaxcnn.layers.lowering import conv, conv_lowering

# name: (size, kernel, c_in, c_out, strides, padding, dilation, groups)
SHAPES = {
    "depthwise": ((7, 7), (3, 3), 8, 8, (1, 1), ((1, 1), (1, 1)), (1, 1), 8),
    "depthwise, stride 2": ((8, 8), (3, 3), 8, 8, (2, 2), ((1, 1), (1, 1)), (1, 1), 8),
    "depthwise, stride 2, odd": ((9, 7), (5, 5), 6, 6, (2, 2), ((2, 2), (2, 2)), (1, 1), 6),
    "depthwise, one side padded": ((8, 9), (3, 3), 4, 4, (2, 2), ((0, 1), (1, 0)), (1, 1), 4),
    "depthwise, not padded": ((8, 6), (3, 3), 4, 4, (1, 1), ((0, 0), (0, 0)), (1, 1), 4),
    "depthwise, padded beyond the kernel": ((5, 5), (3, 3), 4, 4, (1, 1), ((4, 3), (3, 5)), (1, 1), 4),
    "depthwise, rows left over": ((10, 11), (3, 3), 4, 4, (4, 3), ((0, 0), (0, 0)), (1, 1), 4),
    "depthwise, stride beyond the kernel": ((9, 9), (2, 2), 4, 4, (3, 4), ((1, 0), (0, 0)), (1, 1), 4),
    "depthwise, dilated": ((9, 8), (3, 3), 4, 4, (1, 1), ((2, 2), (1, 3)), (2, 1), 4),
    "depthwise, dilated, strided": ((11, 10), (3, 2), 4, 4, (2, 3), ((2, 1), (0, 2)), (2, 3), 4),
    "depthwise, multiplier": ((6, 7), (3, 3), 4, 12, (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    "depthwise, multiplier, strided": ((7, 6), (3, 5), 3, 6, (2, 1), ((1, 1), (2, 2)), (1, 1), 3),
    "depthwise, one row": ((1, 6), (1, 3), 4, 4, (1, 1), ((0, 0), (1, 1)), (1, 1), 4),
    "depthwise, one pixel": ((1, 1), (3, 3), 4, 4, (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    "pointwise, 4 groups": ((5, 4), (1, 1), 4, 8, (2, 1), ((0, 0), (1, 0)), (1, 1), 4),
    "one channel": ((6, 6), (3, 3), 1, 4, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "pointwise": ((5, 7), (1, 1), 6, 10, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, to few channels": ((4, 4), (1, 1), 32, 12, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, many pixels, to few channels": ((40, 45), (1, 1), 32, 12, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, stride 2": ((6, 7), (1, 1), 6, 10, (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, strides differ": ((8, 7), (1, 1), 6, 3, (3, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, padded": ((4, 5), (1, 1), 3, 5, (2, 1), ((1, 2), (0, 1)), (1, 1), 1),
    "pointwise, one pixel": ((1, 1), (1, 1), 6, 10, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "pointwise, 3 groups": ((5, 4), (1, 1), 12, 18, (1, 1), ((0, 0), (0, 0)), (1, 1), 3),
    "pointwise, 2 groups, stride 2": ((5, 4), (1, 1), 8, 4, (2, 2), ((0, 0), (0, 0)), (1, 1), 2),
    "grouped": ((6, 7), (3, 3), 8, 8, (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "grouped, stride 2": ((7, 8), (3, 3), 12, 24, (2, 2), ((1, 1), (1, 1)), (1, 1), 4),
    "grouped, dilated": ((8, 7), (3, 2), 12, 8, (1, 2), ((2, 1), (0, 1)), (2, 1), 4),
    "blocks of groups": ((6, 5), (3, 3), 64, 96, (1, 1), ((1, 1), (1, 1)), (1, 1), 8),
    "blocks of groups, stride 2": ((6, 7), (3, 3), 48, 72, (2, 2), ((1, 1), (1, 0)), (1, 1), 3),
    "blocks of groups, dilated": ((8, 7), (3, 2), 32, 64, (1, 2), ((2, 1), (0, 1)), (2, 1), 4),
    "blocks of groups, a block": ((6, 5), (3, 3), 20, 18, (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "blocks of groups, many channels to few": ((6, 7), (3, 3), 20, 4, (2, 2), ((1, 1), (1, 0)), (1, 1), 2),
    "blocks of groups, depthwise, multiplier": ((6, 7), (3, 3), 64, 512, (1, 1), ((1, 1), (1, 1)), (1, 1), 64),
    "stem": ((7, 6), (3, 3), 3, 6, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "stem, stride 2": ((12, 13), (3, 3), 3, 8, (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "stem, strides differ, dilated": ((12, 13), (2, 4), 3, 8, (2, 3), ((0, 1), (2, 1)), (2, 1), 1),
    "stem, dilated": ((12, 13), (3, 3), 3, 8, (2, 2), ((2, 1), (1, 1)), (1, 2), 1),
    "stem, padded beyond the kernel": ((4, 5), (3, 3), 2, 8, (2, 2), ((4, 3), (5, 4)), (1, 1), 1),
    "stem, columns left over": ((9, 14), (2, 2), 3, 8, (3, 4), ((0, 0), (0, 0)), (1, 1), 1),
    "wide stem, 5x5": ((13, 12), (5, 5), 3, 16, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "wide stem": ((19, 18), (11, 11), 3, 8, (4, 4), ((2, 2), (2, 2)), (1, 1), 1),
    "wide stem, blocks of rows": ((88, 87), (7, 7), 3, 8, (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
    "wide stem, stride 2": ((18, 19), (7, 7), 3, 8, (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
    "dense to few channels": ((7, 6), (3, 3), 20, 6, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "taps": ((3, 3), (3, 3), 24, 18, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "taps, not padded": ((5, 5), (3, 3), 16, 20, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "taps, padded beyond the kernel": ((1, 2), (3, 3), 16, 20, (1, 1), ((3, 0), (0, 3)), (1, 1), 1),
    "taps, stride 2": ((6, 5), (3, 3), 16, 24, (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "taps, stride 3": ((5, 6), (4, 3), 16, 24, (3, 2), ((1, 2), (2, 0)), (1, 1), 1),
    "taps, dilated": ((8, 6), (5, 3), 16, 16, (1, 2), ((2, 1), (0, 2)), (2, 1), 1),
    "taps, two pixels": ((1, 2), (3, 3), 16, 16, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "taps, over 64 channels": ((3, 3), (3, 3), 72, 18, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "taps, one pixel": ((1, 1), (5, 5), 16, 16, (1, 1), ((2, 2), (2, 2)), (1, 1), 1),
    "taps, one pixel that no tap sees": ((1, 1), (2, 2), 16, 16, (1, 1), ((1, 1), (1, 1)), (2, 2), 1),
    "im2col": ((6, 8), (3, 3), 24, 18, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "im2col, not padded": ((6, 5), (3, 3), 16, 20, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "im2col, padded beyond the kernel": ((3, 5), (3, 3), 16, 20, (1, 1), ((3, 4), (0, 3)), (1, 1), 1),
    "im2col, dilated": ((10, 8), (5, 3), 16, 16, (1, 1), ((2, 1), (0, 2)), (2, 1), 1),
    "im2col, stride 2": ((8, 7), (3, 3), 16, 24, (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "im2col, stride 3": ((8, 7), (4, 3), 16, 24, (3, 2), ((1, 2), (2, 0)), (1, 1), 1),
    "im2col, stride 2, padded beyond the kernel": ((5, 6), (3, 3), 16, 20, (2, 2), ((4, 3), (3, 5)), (1, 1), 1),
    "im2col, stride beyond the kernel": ((12, 14), (2, 2), 16, 20, (3, 4), ((1, 0), (0, 0)), (1, 1), 1),
    "im2col, stride 2, dilated": ((12, 11), (3, 2), 16, 20, (2, 3), ((2, 1), (0, 2)), (2, 3), 1),
    "col2im": ((9, 11), (3, 3), 24, 18, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "col2im, padded beyond the kernel": ((6, 6), (3, 3), 16, 20, (1, 1), ((3, 4), (0, 3)), (1, 1), 1),
    "col2im, dilated": ((12, 8), (5, 3), 16, 16, (1, 1), ((2, 1), (0, 2)), (2, 1), 1),
    "dense": ((20, 18), (3, 3), 16, 20, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "dense, over 64 channels": ((26, 40), (3, 3), 72, 20, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "dense, over 64 channels, stride 2": ((27, 24), (3, 5), 72, 20, (2, 2), ((1, 1), (2, 2)), (1, 1), 1),
    "dense, stride 2": ((72, 71), (3, 3), 16, 24, (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "dense, stride 2, a prime number of rows": ((73, 72), (3, 1), 16, 24, (2, 1), ((1, 1), (0, 0)), (1, 1), 1),
    "dense, many pixels": ((36, 50), (3, 3), 16, 24, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "dense, many pixels, dilated": ((41, 82), (5, 3), 16, 16, (1, 1), ((2, 1), (0, 2)), (2, 1), 1),
    "dense, many pixels, a prime number of rows": ((37, 48), (3, 1), 16, 24, (1, 1), ((1, 1), (0, 0)), (1, 1), 1),
    "Winograd": ((36, 50), (3, 3), 64, 72, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "Winograd, odd": ((37, 35), (3, 3), 72, 64, (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "Winograd, not padded": ((38, 37), (3, 3), 64, 64, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "Winograd, padded beyond the kernel": ((31, 36), (3, 3), 64, 64, (1, 1), ((3, 4), (0, 3)), (1, 1), 1),
    "no output": ((2, 2), (3, 3), 4, 4, (1, 1), ((0, 0), (0, 0)), (1, 1), 4),
}
DEPTHWISE, POINTWISE = SHAPES["depthwise, stride 2"], SHAPES["pointwise, stride 2"]
GROUPED, BLOCKS = SHAPES["grouped, stride 2"], SHAPES["blocks of groups, stride 2"]
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
WINOGRAD, DENSE = SHAPES["Winograd"], SHAPES["dense, many pixels"]
KINDS = {
    "Winograd": WINOGRAD,
    "dense": DENSE,
    "dense, over 64 channels": SHAPES["dense, over 64 channels"],
    "im2col": SHAPES["im2col, stride 2"],
    "col2im": SHAPES["col2im"],
    "taps": SHAPES["taps, stride 2"],
    "stem": SHAPES["stem, stride 2"],
    "wide stem": SHAPES["wide stem, blocks of rows"],
    "depthwise": DEPTHWISE,
    "1x1": POINTWISE,
    "grouped": GROUPED,
    "blocks": BLOCKS,
    "blocks of over 64 channels": ((8, 8), (3, 3), 256, 256, (2, 2), ((1, 1), (1, 1)), (1, 1), 2),
}
each_kind = pytest.mark.parametrize("shape", KINDS.values(), ids=KINDS)


def draw(shape, dtype=jnp.float32, batch=2) -> tuple[Array, Array, dict]:
    """An input, a kernel, and the options of `conv`."""
    size, kernel, c_in, c_out, strides, padding, dilation, groups = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, *size, c_in)), dtype)
    k = jnp.asarray(rng.normal(size=(*kernel, c_in // groups, c_out)), dtype)
    return x, k, {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}


def reference(x, kernel, *, strides, padding, dilation, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def value_and_gradients(function, options, x, k):
    alone = function(x, k, **options)  # may be lowered otherwise where no gradient is wanted
    y, pullback = jax.vjp(lambda x, k: function(x, k, **options), x, k)
    weights = jnp.arange(y.size).reshape(y.shape) % 7 - 3  # the same in every dtype
    return alone, y, *pullback(weights.astype(y.dtype))


def check(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max(initial=1e-3))


def compare(shape, dtype, tolerance):
    x, k, options = draw(shape, dtype)
    actual, expected = (
        jax.jit(lambda x, k, function=function: value_and_gradients(function, options, x, k))(x, k)
        for function in (conv, reference)
    )
    check(actual, expected, tolerance)


@each_kind  # float64 has every shape
def test_float32(shape):
    compare(shape, jnp.float32, 2e-6)


@pytest.mark.parametrize("size", [(6, 8), (4, 12), (8, 16)], ids=["im2col", "im2col, two rows", "dense, two rows"])
def test_blocks_of_rows_of_many_images(size):
    x, k, options = draw((size, (3, 3), 16, 20, (1, 1), ((1, 1), (1, 1)), (1, 1), 1), batch=40)
    actual, expected = (value_and_gradients(function, options, x, k) for function in (conv, reference))
    check(actual, expected, 2e-6)


@every_shape
def test_float64(shape):
    with jax.enable_x64(True):
        compare(shape, jnp.float64, 1e-14)


@every_shape
def test_bfloat16_is_summed_in_float32(shape):
    x, k, options = draw(shape, jnp.bfloat16)
    actual = jax.jit(partial(value_and_gradients, conv, options))(x, k)  # what XLA makes of all of it together
    exact = value_and_gradients(reference, options, x.astype(jnp.float32), k.astype(jnp.float32))
    # Rounded once, at the end: bfloat16 has 8 bits.
    check(actual, [e.astype(jnp.bfloat16) for e in exact], 2**-8)


@each_kind
def test_second_derivatives(shape):
    with jax.enable_x64(True):  # float32 would round more away in the sums of sines than a mistake might add
        x, k, options = draw(shape, jnp.float64)

        def gradient_of_gradient(function):
            def penalty(x, k):  # a function of all three maps: of the output and of both gradients
                return sum(jnp.sum(jnp.sin(a / 16)) for a in value_and_gradients(function, options, x, k))

            return jax.jit(jax.grad(lambda x, k: jnp.sum(jax.grad(penalty)(x, k) ** 2), argnums=(0, 1)))(x, k)

        check(gradient_of_gradient(conv), gradient_of_gradient(reference), 1e-12)


def test_hessian():
    x, k, options = draw(((4, 4), (3, 3), 2, 2, (1, 1), ((1, 1), (1, 1)), (1, 1), 2), batch=1)

    def hessian(function):
        return jax.jacrev(jax.jacrev(lambda k: jnp.sum(jnp.tanh(function(x, k, **options)))))(k)

    check(hessian(conv), hessian(reference), 1e-5)


@each_kind
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["images", "kernels", "both"])
def test_vmap(shape, axes):
    x, k, options = draw(shape)
    x, k = (jnp.stack([a, 2 * a, a + 1]) if axis == 0 else a for a, axis in zip((x, k), axes, strict=True))

    def mapped(function):
        return jax.jit(jax.vmap(lambda x, k: value_and_gradients(function, options, x, k), axes))(x, k)

    check(mapped(conv), mapped(reference), 1e-5)


@each_kind
def test_remat_and_eager(shape):
    x, k, options = draw(shape)
    expected = value_and_gradients(reference, options, x, k)
    check(value_and_gradients(conv, options, x, k), expected, 1e-5)
    remat = jax.checkpoint(lambda x, k: conv(x, k, **options))
    check(jax.jit(lambda x, k: value_and_gradients(remat, {}, x, k))(x, k), expected, 1e-5)


@each_kind
@pytest.mark.parametrize("platforms", [("cpu",), ("cpu", "tpu")])
def test_export(shape, platforms):
    x, k, options = draw(shape)
    function = jax.jit(lambda x, k: value_and_gradients(conv, options, x, k))
    exported = jax.export.export(function, platforms=platforms)(x, k)
    check(exported.call(x, k), function(x, k), 1e-6)


@each_kind
def test_symbolic_batch_size(shape):
    x, k, options = draw(shape)
    function = jax.jit(lambda x, k: value_and_gradients(conv, options, x, k))
    batch = jax.export.symbolic_shape("n")
    like = jax.ShapeDtypeStruct((*batch, *x.shape[1:]), x.dtype)
    check(jax.export.export(function)(like, k).call(x, k), function(x, k), 1e-6)


@each_kind
def test_symbolic_image_size(shape):
    x, k, options = draw((tuple(2 * side for side in shape[0]), *shape[1:]))
    function = jax.jit(lambda x, k: value_and_gradients(conv, options, x, k))
    size = jax.export.symbolic_shape("n, 2*h, 2*w, c")[:3]
    like = jax.ShapeDtypeStruct((*size, x.shape[3]), x.dtype)
    check(jax.export.export(function)(like, k).call(x, k), function(x, k), 1e-5)


@each_kind
def test_no_images(shape):
    x, k, options = draw(shape, batch=0)
    y, y_in_training, of_x, of_k = value_and_gradients(conv, options, x, k)
    assert y.shape == y_in_training.shape == reference(x, k, **options).shape
    assert of_x.shape == x.shape
    np.testing.assert_array_equal(of_k, jnp.zeros_like(k))


NAMED = {  # how the shapes of a way of computing begin
    "Winograd": conv_algorithms.WINOGRAD,
    "taps": conv_algorithms.TAPS,
    "im2col": conv_algorithms.IM2COL,
    "col2im": conv_algorithms.COL2IM,
    "dense to few channels": conv_algorithms.XLA,
    "dense": conv_algorithms.DENSE,
    "stem": conv_algorithms.STEM,
    "wide stem": conv_algorithms.WIDE_STEM,
    "depthwise": conv_algorithms.GROUPED,
    "grouped": conv_algorithms.GROUPED,
    "blocks": conv_algorithms.BLOCKED,
    "pointwise, 4 groups": conv_algorithms.BLOCKED,
    "pointwise, 3 groups": conv_algorithms.BLOCKED,
    "pointwise, 2 groups": conv_algorithms.BLOCKED,
    "pointwise": conv_algorithms.POINTWISE,
}


@every_shape
def test_a_shape_reaches_what_it_is_named_for(shape):
    x, k, options = draw(shape)
    name = next(name for name, named in SHAPES.items() if named is shape)
    way = next((way for start, way in NAMED.items() if name.startswith(start)), None)
    chosen = lowering._choose(Geometry(jax.typeof(x), jax.typeof(k), *options.values()))
    assert way is None or chosen is way


def lowered(shape, platform):
    x, k, options = draw(shape)
    function = jax.jit(lambda x, k: value_and_gradients(conv, options, x, k)[1:])
    return function.trace(x, k).lower(lowering_platforms=(platform,)).as_text()


@each_kind
def test_the_mode_and_the_platform_choose_the_operation(shape):
    convolution = "stablehlo.convolution"
    # In training, of a dense one, only the kernel gradient is ours.
    of_xla = dict.fromkeys((DENSE, KINDS["dense, over 64 channels"], KINDS["wide stem"], WINOGRAD, BLOCKS), 2)
    of_xla = (of_xla | {KINDS["stem"]: 1, KINDS["col2im"]: 1, KINDS["blocks of over 64 channels"]: 4}).get(shape, 0)
    assert lowered(shape, "cpu").count(convolution) == of_xla
    assert lowered(shape, "tpu").count(convolution) == 3
    assert lowered(shape, "cuda").count(convolution) == 3
    with conv_lowering("xla"):
        assert lowered(shape, "cpu").count(convolution) == 3


def test_winograd_where_no_gradient_is_wanted():
    x, k, options = draw(WINOGRAD)
    text = jax.jit(lambda x, k: conv(x, k, **options)).lower(x, k).as_text()
    assert (text.count("stablehlo.convolution"), text.count("dot_general")) == (0, 16)


def test_a_jitted_function_is_traced_again_in_another_mode():
    x, k, options = draw(DEPTHWISE)
    traced = []

    @jax.jit
    def function(x, k):
        traced.append(str(jax.make_jaxpr(lambda x, k: conv(x, k, **options))(x, k)))
        return conv(x, k, **options)

    expected = reference(x, k, **options)
    for mode in ("auto", "xla", "auto", "xla"):
        with conv_lowering(mode):
            check(function(x, k), expected, 1e-6)
    check(function(x, k), expected, 1e-6)
    assert ["custom_vjp" in jaxpr for jaxpr in traced] == [True, False]


def test_the_mode_is_restored_after_an_error():
    x, k, options = draw(DEPTHWISE)
    with pytest.raises(KeyError), conv_lowering("xla"):
        raise KeyError
    assert "custom_vjp" in str(jax.make_jaxpr(lambda x, k: conv(x, k, **options))(x, k))


def test_forward_mode_under_xla():
    x, k, options = draw(DEPTHWISE)
    with conv_lowering("xla"):
        _, tangent = jax.jvp(lambda x: conv(x, k, **options), (x,), (x,))
    check(tangent, reference(x, k, **options), 1e-6)


def test_unknown_mode():
    message = "mode must be one of 'auto', 'xla', got 'fast'"
    with pytest.raises(ValueError, match=message):
        conv_lowering("fast")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(6, 4, 4), (8, 6, 4)])
def test_channels_that_do_not_fit(c_in, c_out, groups):
    x, k = jnp.ones((1, 4, 4, c_in)), jnp.ones((1, 1, c_in // groups, c_out))
    with pytest.raises(ValueError, match=f"input of {c_in} channels in {groups} groups"):
        conv(x, k, strides=(1, 1), padding=((0, 0), (0, 0)), groups=groups)


SHARDED = """
import functools
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.layers.test_lowering import KINDS, check, conv, draw, reference, value_and_gradients

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
for shape in KINDS.values():
    x, k, options = draw(shape, batch=4)
    expected = value_and_gradients(reference, options, x, k)

    function = jax.jit(lambda x, k: value_and_gradients(conv, options, x, k))
    placed = jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(k, NamedSharding(mesh, P()))
    check(function(*placed), expected, 1e-5)
    program = function.lower(*placed).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program, program

    def loss(x, k):
        return jax.lax.pmean(jnp.mean(conv(x, k, **options) ** 2), "data")

    expected = jax.grad(lambda k: jnp.mean(reference(x, k, **options) ** 2))(k)
    mapped = jax.shard_map(jax.grad(loss, 1), mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    check(jax.jit(mapped)(x, k), expected, 1e-5)

    @functools.partial(jax.pmap, axis_name="data", in_axes=(0, None))
    def gradient(x, k):
        return jax.lax.pmean(jax.grad(lambda k: jnp.mean(conv(x, k, **options) ** 2))(k), "data")

    check(gradient(x.reshape(2, 2, *x.shape[1:]), k)[0], expected, 1e-5)
"""


def test_two_devices():
    """Data-parallel: sharded by the compiler without moving the images, by `shard_map` and by `pmap`."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    command = [sys.executable, "-c", SHARDED]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
