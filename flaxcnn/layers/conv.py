"""Convolution with PyTorch's explicit padding, lowered the fastest way for the backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, Literal, SupportsIndex

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jax.typing import DTypeLike

from flaxcnn.layers.initializers import Initializer, torch_bias, torch_kernel
from flaxcnn.layers.lowering import conv

IntPair = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]] | Literal["SAME", "VALID"]


def as_pair(value: IntPair, field: str, least: int = 1) -> tuple[int, int]:
    """An int for both axes, or one for each of (height, width).

    Raises:
        ValueError: for anything else, or less than `least`; it names the field.
    """
    try:
        pair = [index(n) for n in (value if isinstance(value, Iterable) else (value, value))]
    except TypeError:
        pair = []
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{field} must be a whole number, {least} or more, or two for (height, width), not {value!r}")
    return pair[0], pair[1]


class Conv(nn.Module):
    """2-D convolution over NHWC images, as `torch.nn.Conv2d` computes it.

    Field names are those of `flax.linen.Conv`, and so are the parameters' shapes: `kernel`
    (kh, kw, c_in / groups, c_out) and `bias` (c_out,). The defaults are PyTorch's: no padding, a bias,
    and PyTorch's initialisation. Of `flax.linen.Conv`'s fields, `input_dilation`, `mask`, `precision` and the
    functions to put in the place of others (`promote_dtype`, `conv_general_dilated`) are missing; so are its
    circular and causal padding.

    Attributes:
        features: output channels.
        kernel_size: one int for a square kernel, or (kh, kw).
        strides: one int, or one for each axis.
        padding: pixels on every side; or for each axis an int or a (low, high) pair; or `"SAME"`
            (TensorFlow's, which depends on the input size) or `"VALID"`.
        kernel_dilation: one int, or one for each axis.
        feature_group_count: groups; divides the input channels and `features`.
        bias_init: None for PyTorch's U(+-1/sqrt(fan_in)).
        dtype: of the computation; None for the promoted type of input and parameters.
    """

    features: int
    kernel_size: IntPair
    strides: IntPair = 1
    padding: Padding = 0
    kernel_dilation: IntPair = 1
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = torch_kernel
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolve.

        Args:
            x: images (n, h, w, c_in).

        Returns:
            (n, h', w', features), h' = floor((h + 2 padding - dilation (kh - 1) - 1) / stride) + 1.

        Raises:
            ValueError: when `x` has other dimensions, a field is out of range, the groups do not divide the
                channels, or the padded input is smaller than the kernel.
        """
        if x.ndim != 4:
            raise ValueError(f"Conv takes images of shape (n, h, w, c), not {x.shape}; one image is x[None]")
        for field in ("features", "feature_group_count"):
            if not isinstance(value := getattr(self, field), SupportsIndex) or index(value) < 1:
                raise ValueError(f"{field} must be a whole number, 1 or more, not {value!r}")
        groups = self.feature_group_count
        if x.shape[-1] % groups or self.features % groups:
            raise ValueError(
                f"groups={groups} must divide both {x.shape[-1]} input channels and {self.features} features"
            )
        kernel_size = as_pair(self.kernel_size, "kernel_size")
        strides, dilation = as_pair(self.strides, "strides"), as_pair(self.kernel_dilation, "kernel_dilation")
        shape = (*kernel_size, x.shape[-1] // groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias_init = self.bias_init or torch_bias(fan_in=kernel_size[0] * kernel_size[1] * shape[2])
        bias = self.param("bias", bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        padding = _explicit_padding(self.padding, x.shape[1:3], kernel_size, strides, dilation)
        y = conv(x, kernel, strides=strides, padding=padding, dilation=dilation, groups=groups)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def _margins(padding: Any) -> list[tuple[int, int]]:
    """(low, high) for each axis."""
    try:
        axes: Any = (padding, padding) if isinstance(padding, SupportsIndex) else padding
        pairs = [as_pair(margins, "padding", least=0) for margins in axes]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) != 2:
        raise ValueError(
            "padding must be pixels, 0 or more: an int, or an int or a (low, high) pair for each axis; or 'SAME' or "
            f"'VALID', not {padding!r}"
        )
    return pairs


def _explicit_padding(
    padding: Padding,
    size: tuple[int, ...],
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    extents = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        pairs = lax.padtype_to_pads(size, extents, strides, padding)
    else:
        pairs = _margins(padding)
    for n, (low, high), extent in zip(size, pairs, extents, strict=True):
        if n + low + high < extent:
            raise ValueError(
                f"an input of {size[0]}x{size[1]} pixels is too small for a {kernel_size[0]}x{kernel_size[1]} "
                f"kernel (padding {tuple(pairs)}, dilation {dilation})"
            )
    (top, bottom), (left, right) = pairs
    return (top, bottom), (left, right)
