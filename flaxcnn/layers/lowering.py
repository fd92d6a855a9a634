"""How a convolution is lowered."""

from __future__ import annotations

from jax import Array, lax


def conv(
    x: Array,
    kernel: Array,
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Array:
    """Convolve x (n, h, w, c_in) with kernel (kh, kw, c_in / groups, c_out)."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
