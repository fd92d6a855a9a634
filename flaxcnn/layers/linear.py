"""The fully connected layer."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array
from jax.typing import DTypeLike

from flaxcnn.layers.initializers import Initializer, torch_bias, torch_kernel


class Linear(nn.Module):
    """`torch.nn.Linear`: `kernel` (inputs, features), `bias` (features,), PyTorch's initialisation.

    Attributes:
        features: outputs.
        bias_init: None for PyTorch's U(+-1/sqrt(inputs)).
        dtype: of the computation; None for the promoted type of input and parameters.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = torch_kernel
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map x (..., inputs) to (..., features)."""
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features), self.param_dtype)
        bias_init = self.bias_init or torch_bias(fan_in=inputs)
        bias = self.param("bias", bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.dot(x, kernel)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
