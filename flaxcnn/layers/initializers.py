"""The initialisers of PyTorch's reference models.

The fans of a kernel (kh, kw, c_in / groups, c_out) are counted alike by JAX and PyTorch, grouped
kernels included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import normal, variance_scaling, zeros
from jax.typing import DTypeLike

Initializer = Callable[..., Array]
"""(key, shape, dtype) -> array."""

__all__ = [
    "Initializer",
    "kaiming_fan_in",
    "kaiming_fan_out",
    "normal",
    "torch_bias",
    "torch_kernel",
    "uniform",
    "zeros",
]

torch_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""`torch.nn.Conv2d` and `torch.nn.Linear`: U(+-1/sqrt(fan_in))."""

kaiming_fan_out: Initializer = variance_scaling(2.0, "fan_out", "normal")
"""`torch.nn.init.kaiming_normal_(mode="fan_out")`: N(0, 2/fan_out), not truncated."""

kaiming_fan_in: Initializer = variance_scaling(2.0, "fan_in", "normal")
"""`torch.nn.init.kaiming_normal_()`: N(0, 2/fan_in), not truncated."""


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's default bias of a convolution or Linear with `fan_in` inputs: U(+-1/sqrt(fan_in))."""
    return uniform(fan_in**-0.5)
