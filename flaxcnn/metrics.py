"""Metrics as sums and counts, so that they add up over batches and devices."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array


def in_top_k(logits: Array, labels: Array, k: int) -> Array:
    """Whether the label is among the k largest logits.

    Ties go to the lower class index, as in `argmax`; logits that are not numbers beat the label.

    Args:
        logits: (n, classes).
        labels: class indices (n,).
        k: how many guesses count.

    Returns:
        bool (n,).
    """
    label = labels.reshape(-1, 1)
    own = jnp.take_along_axis(logits, label, axis=1)  # (n, 1)
    index = jnp.arange(logits.shape[1], dtype=labels.dtype).reshape(1, -1)
    ahead = ~(logits <= own) | ((logits == own) & (index < label))  # (n, classes)
    return ahead.sum(axis=1) < k


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Divide summed metrics by their `count`.

    Args:
        sums: metric -> sum, and `count`, the examples summed over.

    Returns:
        metric -> mean, without `count`.
    """
    return {name: float(total) / float(sums["count"]) for name, total in sums.items() if name != "count"}
