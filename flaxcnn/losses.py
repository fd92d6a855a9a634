"""Losses: an array of logits and labels in, one value an example out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array


def softmax_cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """`torch.nn.functional.cross_entropy(reduction="none")`.

    Args:
        logits: (n, classes).
        labels: class indices (n,), or probabilities (n, classes). The loss of an index that is no class is NaN.
        label_smoothing: mass moved from the labels to the uniform distribution.

    Returns:
        (n,), in float32 at least.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if labels.ndim == 2:
        return _cross_entropy(logits, labels, label_smoothing)
    if label_smoothing:
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        loss = _cross_entropy(logits, one_hot, label_smoothing)
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    is_class = (labels >= 0) & (labels < logits.shape[-1])  # -1 would count from the end
    return jnp.where(is_class, loss, jnp.nan)


def _cross_entropy(logits: Array, probabilities: Array, label_smoothing: float) -> Array:
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(probabilities.astype(logits.dtype), label_smoothing))
