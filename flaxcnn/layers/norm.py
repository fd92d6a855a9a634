"""Batch normalisation with PyTorch's running statistics."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from jax import Array, lax
from jax.nn.initializers import ones, zeros
from jax.typing import DTypeLike

from flaxcnn.layers.initializers import Initializer


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
        if self.use_running_average if use_running_average is None else use_running_average:
            batch_mean, batch_var = mean.value, var.value
        else:
            batch_mean, batch_var, count = _statistics(x, self.axis_name)
            if not self.is_initializing():
                self._update(mean, batch_mean)
                self._update(var, batch_var * _bessel(count))
        factor = scale * lax.rsqrt(batch_var + jnp.asarray(self.epsilon, batch_var.dtype))
        along_channels = (1,) * (x.ndim - 1) + shape
        # Subtracting first keeps the digits that `x * factor + offset` would lose to a large mean.
        y = (x - batch_mean.reshape(along_channels)) * factor.reshape(along_channels) + bias.reshape(along_channels)
        return y.astype(dtype)

    def _update(self, running: nn.Variable, batch: Array) -> None:
        old = running.value
        running.value = (old * (1 - self.momentum) + batch * self.momentum).astype(old.dtype)


def _statistics(x: Array, axis_name: str | None) -> tuple[Array, Array, int]:
    """Mean and biased variance of each channel, and how many values they are taken of."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean = jnp.mean(x, axes)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count *= jax.lax.axis_size(axis_name)
    deviation = x - mean.reshape((1,) * len(axes) + (-1,))
    var = jnp.mean(jnp.square(deviation), axes)
    if axis_name is not None:
        var = lax.pmean(var, axis_name)
    return mean, var, count


def _bessel(count: int) -> float:
    if count < 2:
        raise ValueError(
            "BatchNorm in training needs more than one value per channel: use a larger batch or a larger image"
        )
    return count / (count - 1)
