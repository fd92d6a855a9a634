"""How a 2-D convolution is lowered: to XLA's own operation, or to the same sum in a form that suits XLA.

XLA's CPU backend runs depthwise, grouped and 1x1 convolutions, those over few pixels, and above all the
gradients, far below the speed of the machine. Here one of the ways of `conv_algorithms` is chosen for each
convolution, and given derivatives of any order that take the same way.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax

from flaxcnn.layers.conv_algorithms import (
    BLOCKED,
    COL2IM,
    DENSE,
    GROUPED,
    IM2COL,
    POINTWISE,
    STEM,
    TAPS,
    WIDE_STEM,
    WINOGRAD,
    XLA,
    Geometry,
    Lowering,
    Pair,
)
from flaxcnn.layers.once import once

Mode = Literal["auto", "xla"]

_mode = jax.make_user_context("auto")  # part of the key of every jit cache


def conv_lowering(mode: Mode) -> AbstractContextManager[None]:
    """Choose how the convolutions and pools traced inside a `with` block are lowered.

    The mode is read when a function is traced and is part of the key of `jax.jit`'s caches: a function jitted
    under one mode is traced again when it is called under the other.

    Args:
        mode: "auto", the default outside any block, lowers each the fastest way for the backend it is compiled
            for; "xla" always takes `jax.lax.conv_general_dilated` and `jax.lax.reduce_window`. Both agree to
            rounding, for finite numbers.
            "auto" has custom reverse-mode rules, of any order; forward-mode differentiation (`jax.jvp`,
            `jax.linearize`, `jax.jacfwd`) needs "xla".

    Raises:
        ValueError: If `mode` is neither.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(map(repr, get_args(Mode)))}, got {mode!r}")
    return _mode(mode)


def lowering_mode() -> Mode:
    """What `conv_lowering` chose here."""
    return _mode.value


def conv(
    x: Array,
    kernel: Array,
    *,
    strides: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Convolve images with a kernel (a cross-correlation, as in every deep learning library).

    Args:
        x: Images of shape (n, h, w, c_in).
        kernel: Weights of shape (kh, kw, c_in // groups, c_out), of x's dtype.
        strides: Steps of the window in rows and columns.
        padding: Zeros (before, after) the rows and the columns.
        dilation: Distances between the taps of the kernel in rows and columns.
        groups: Number of groups that the channels fall into; a group of outputs sees one group of inputs.

    Returns:
        Array of shape (n, h', w', c_out), of x's dtype. `conv_lowering` sets how it is computed.

    Raises:
        ValueError: If the channels of x, the kernel and the groups do not agree, or the dtypes.
    """
    c_in, c_out = x.shape[-1], kernel.shape[-1]
    if kernel.shape[2] * groups != c_in or c_out % groups:
        raise ValueError(
            f"kernel of shape {kernel.shape} does not fit an input of {c_in} channels in {groups} groups: "
            "it must be (kh, kw, c_in // groups, c_out) with c_out a multiple of groups"
        )
    if kernel.dtype != x.dtype:
        raise ValueError(f"kernel and input must be of one dtype, got {kernel.dtype} and {x.dtype}")
    geometry = Geometry(jax.typeof(x), jax.typeof(kernel), strides, padding, dilation, groups)
    lowering = _choose(geometry) if lowering_mode() == "auto" else XLA
    if lowering is XLA or not jnp.issubdtype(x.dtype, jnp.floating):
        return XLA.forward(geometry, x, kernel)
    x, kernel = _vary_alike(x, kernel)
    return _forward(lowering, geometry._replace(x=jax.typeof(x), k=jax.typeof(kernel)), x, kernel)


def _vary_alike(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Make both vary over the same mesh axes, where JAX sees it and sums the gradient of what did not vary.

    Inside `jax.shard_map` the kernel is usually the same on all devices and the images are not. Operations
    inside a custom rule come too late for that sum.
    """
    zero_x, zero_kernel = jnp.zeros_like(x, shape=()), jnp.zeros_like(kernel, shape=())
    if jax.typeof(zero_x) != jax.typeof(zero_kernel):
        return x + zero_kernel, kernel + zero_x
    return x, kernel


def _choose(geometry: Geometry) -> Lowering:
    """The fastest lowering on a CPU; other backends always take XLA's.

    Figures: milliseconds, XLA's operation -> ours, of the convolution, its input gradient and its kernel
    gradient, in float32 with a batch of 16 on two busy cores (`python benchmarks/convolution.py`).
    """
    (kh, kw, channels, c_out), groups = geometry.k.shape, geometry.groups
    if 0 in geometry.output_size:
        return XLA
    if groups == 1:
        if (kh, kw) == (1, 1):  # 56x56, 256-512, stride 2: 60 -> 56, 49 -> 45, 389 -> 46
            return POINTWISE
        return WINOGRAD if _suits_winograd(geometry) else _choose_dense(geometry)
    if (kh, kw) == (1, 1) or max(channels, c_out // groups) >= 8:
        return BLOCKED  # 28x28, 256, 3x3 in 32 groups: 147 -> 36, 156 -> 38, 12206 -> 56
    return GROUPED  # 56x56, 144, depthwise 3x3: 482 -> 24, 480 -> 23, 1153 -> 37


def _choose_dense(geometry: Geometry) -> Lowering:
    """Of kernels with rows or columns, ungrouped, where the gradients will be wanted."""
    (kh, kw, c_in, c_out), n, (h, w) = geometry.k.shape, geometry.x.shape[0], geometry.output_size
    if not isinstance(h, int) or not isinstance(w, int):  # an exported function's symbols
        return XLA
    if c_in < 16:  # 160x160, 3-32, 3x3, stride 2: 5.4 -> 2.4, 4.1 -> 3.6; VGG's kernel gradient: 50 -> 18
        # Of more terms, XLA makes one slow loop with a pool behind it: 36 in bfloat16 25 ms, its own convolution 2.8.
        return STEM if kh * kw * c_in <= 27 else WIDE_STEM
    if c_out < 16:
        return XLA
    # Padding is much of what the taps see; the number of images may be an exported function's symbol.
    if h * w <= 9:  # 2x2, 256, 3x3: 19 -> 0.5, 19 -> 0.6, 0.4 -> 0.7
        return TAPS
    if geometry.x.dtype.itemsize < 4:
        return XLA
    if not isinstance(n, int) or n * w > 1600:  # a row of all images leaves the cache
        return DENSE
    if h * w <= 49:  # 7x7, 512: its gradients 45 -> 25, 56 -> 29
        return IM2COL
    if geometry.strides == (1, 1) and h * w <= 100:  # 10x10, 256: its input gradient 24 -> 18, kernel's 31 -> 14
        return COL2IM
    return DENSE  # 40x40, 64-192: its kernel gradient 320 -> 66


def _suits_winograd(geometry: Geometry) -> bool:
    """Whether the transformed arrays stay near the cache, and are few beside the products.

    40x40, 64-64: 8.1 -> 4.6 ms; 10x10, 512-512: 21.5 -> 11.4; but 80x80, 64-128: 51 -> 87.
    """
    (n, *_, c_in), c_out, (h, w) = geometry.x.shape, geometry.k.shape[3], geometry.output_size
    if geometry.kernel_size != (3, 3) or not geometry.strides == geometry.dilation == (1, 1):
        return False
    if geometry.x.dtype.itemsize < 4 or not all(isinstance(extent, int) for extent in (n, h, w)):
        return False
    return min(c_in, c_out) >= 64 and h * w > 9 and n * h * w * (c_in + c_out) <= 5_000_000


# The scalar <x * k, y> is linear in each of x, k and y. Each function below takes two of them to the scalar's
# gradient with respect to the third, and so the derivatives of each function are the other two.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _forward(lowering: Lowering, geometry: Geometry, x: Array, k: Array) -> Array:
    return _on_platform("forward", lowering, geometry, x, k)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _input_gradient(lowering: Lowering, geometry: Geometry, y: Array, k: Array) -> Array:
    return _on_platform("input_gradient", lowering, geometry, y, k)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_gradient(lowering: Lowering, geometry: Geometry, x: Array, y: Array) -> Array:
    return _on_platform("kernel_gradient", lowering, geometry, x, y)


def _gradients(lowering: Lowering, geometry: Geometry, operands: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
    (x, k), y = operands, once(y)  # both read it
    lowering = _in_training(lowering, geometry)
    return _input_gradient(lowering, geometry, y, k), _kernel_gradient(lowering, geometry, x, y)


_forward.defvjp(
    lambda lowering, geometry, x, k: (_forward(_in_training(lowering, geometry), geometry, x, k), (x, k)),
    _gradients,
)
_input_gradient.defvjp(
    lambda lowering, geometry, y, k: (_input_gradient(lowering, geometry, y, k), (y, k)),
    lambda lowering, geometry, operands, x: (
        _forward(lowering, geometry, x, operands[1]),
        _kernel_gradient(lowering, geometry, x, operands[0]),
    ),
)
_kernel_gradient.defvjp(
    lambda lowering, geometry, x, y: (_kernel_gradient(lowering, geometry, x, y), (x, y)),
    lambda lowering, geometry, operands, k: (
        _input_gradient(lowering, geometry, operands[1], k),
        _forward(lowering, geometry, operands[0], k),
    ),
)


def _in_training(lowering: Lowering, geometry: Geometry) -> Lowering:
    """Winograd's gain is lost to the cache within a training step, but where XLA's convolution takes one core only.

    ResNet-18's step at 160 pixels, 64 channels so: 322 -> 289 ms; 128 and 256 too: 283 ms, but 1.5 times to compile.
    """
    one_core = geometry.k.shape[3] <= 64
    return _choose_dense(geometry) if lowering is WINOGRAD and not one_core else lowering


@partial(jax.jit, static_argnums=(0, 1, 2))  # layers of one shape are traced and lowered once
def _on_platform(name: str, lowering: Lowering, geometry: Geometry, a: Array, b: Array) -> Array:
    return lax.platform_dependent(
        a,
        b,
        cpu=partial(getattr(lowering, name), geometry),
        default=partial(getattr(XLA, name), geometry),
    )
