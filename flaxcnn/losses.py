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
        labels: class indices (n,), or probabilities (n, classes).
        label_smoothing: mass moved from the labels to the uniform distribution.

    Returns:
        (n,), in float32 at least.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if labels.ndim == 1 and label_smoothing == 0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(labels.astype(logits.dtype), label_smoothing))
