"""Batch normalisation with PyTorch's running statistics."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from jax import Array, lax
from jax.nn.initializers import ones, zeros
from jax.typing import DTypeLike

from flaxcnn.layers.initializers import Initializer
from flaxcnn.layers.once import once


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d` over the last axis.

    Parameters `scale` and `bias`, statistics `mean` and `var` in the collection `batch_stats`, each
    (channels,). Three things differ from `flax.linen.BatchNorm`: the running variance is the unbiased
    one (the batch itself is normalised with the biased variance), `momentum` is the weight of the *new*
    statistics, and the variance is computed in two passes, so that it keeps its digits when the mean
    is large.

    Attributes:
        use_running_average: True in evaluation; False normalises with the batch and updates `batch_stats`.
        momentum: weight of the batch in the running statistics (0.1 is flax's 0.9).
        axis_name: of a `pmap` or `shard_map` over whose devices the statistics are shared.
        dtype: of the result; None for the promoted type of input and parameters. Statistics are
            computed in float32 at least.
    """

    use_running_average: bool
    momentum: float = 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    scale_init: Initializer = ones
    bias_init: Initializer = zeros

    @nn.compact
    def __call__(self, x: Array, *, use_running_average: bool | None = None) -> Array:
        """Normalise x (..., channels) over all axes but the last.

        Args:
            x: the input.
            use_running_average: overrides the attribute of that name.

        Raises:
            ValueError: in training, when a channel has a single value to take statistics of.
        """
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        along_channels = (1,) * (x.ndim - 1) + shape
        if self.use_running_average if use_running_average is None else use_running_average:
            factor = scale * lax.rsqrt(_add(var.value, self.epsilon))
            # Subtracting first keeps the digits that `x * factor + offset` would lose to a large mean.
            y = (x - mean.value.reshape(along_channels)) * factor.reshape(along_channels)
            return (y + bias.reshape(along_channels)).astype(dtype)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        operands = x, scale.reshape(along_channels), bias.reshape(along_channels)
        y, batch_mean, batch_var = _normalize(self.epsilon, self.axis_name, *operands)
        if not self.is_initializing():
            count = x.size // x.shape[-1] * (1 if self.axis_name is None else jax.lax.axis_size(self.axis_name))
            self._update(mean, batch_mean.reshape(shape))
            self._update(var, batch_var.reshape(shape) * _bessel(count))
        return y.astype(dtype)

    def _update(self, running: nn.Variable, batch: Array) -> None:
        old = running.value
        running.value = (old * (1 - self.momentum) + batch * self.momentum).astype(old.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _normalize(
    epsilon: float, axis_name: str | None, x: Array, scale: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """x normalised with its own mean and biased variance (two passes), and these: (1, ..., 1, channels) each.

    Autodiff of it would go over x in several more passes than the derivative in closed form.
    """
    centred, mean, var = _centre(axis_name, x)
    return centred * (scale * lax.rsqrt(_add(var, epsilon))) + bias, mean, var


@_normalize.defjvp
def _normalize_jvp(
    epsilon: float, axis_name: str | None, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The sums are over x's tangent as it is: so are their transposes over y's cotangent, and are the parameters'."""
    (x, scale, bias), (x_dot, scale_dot, bias_dot) = primals, tangents
    centred, mean, var = _centre(axis_name, x)
    inverse = lax.rsqrt(_add(var, epsilon))  # of the standard deviation
    factor = scale * inverse
    mean_dot, half_var_dot = _average(axis_name, x_dot), _average(axis_name, centred * x_dot)
    slope = inverse * scale_dot - factor * jnp.square(inverse) * half_var_dot
    y_dot = factor * x_dot + centred * slope + (bias_dot - factor * mean_dot)
    return (centred * factor + bias, mean, var), (y_dot, mean_dot, 2 * half_var_dot)


def _centre(axis_name: str | None, x: Array) -> tuple[Array, Array, Array]:
    """x less its mean, the mean, and the biased variance, of each channel."""
    mean = _average(axis_name, x)
    centred = once(x - mean)  # which the derivative wants again; x itself is then done with
    return centred, mean, _average(axis_name, jnp.square(centred))


def _average(axis_name: str | None, x: Array) -> Array:
    mean = jnp.mean(x, tuple(range(x.ndim - 1)), keepdims=True)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _add(var: Array, epsilon: float) -> Array:
    return var + jnp.asarray(epsilon, var.dtype)


def _bessel(count: int) -> float:
    if count < 2:
        raise ValueError(
            "BatchNorm in training needs more than one value per channel: use a larger batch or a larger image"
        )
    return count / (count - 1)
