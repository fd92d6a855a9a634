"""Metrics as sums and counts, so that they add up over batches and devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array


def in_top_k(logits: Array, labels: Array, k: int) -> Array:
    """Whether the label is among the k largest logits.

    Ties go to the lower class index, as in `argmax`; logits that are not numbers beat the label.

    Args:
        logits: (n, classes).
        labels: class indices (n,), or how much of each class there is (n, classes): one of the most will do. An image
            of no class is a miss.
        k: how many guesses count.

    Returns:
        bool (n,).
    """
    has_class = jnp.ones(len(labels), bool)
    if labels.ndim == 2:
        is_most = labels == labels.max(axis=1, keepdims=True)
        has_class = labels.max(axis=1) > 0
        labels = jnp.where(is_most, logits, -jnp.inf).argmax(axis=1)
    label = labels.reshape(-1, 1)
    own = jnp.take_along_axis(logits, label, axis=1)  # (n, 1)
    index = jnp.arange(logits.shape[1], dtype=labels.dtype).reshape(1, -1)
    ahead = ~(logits <= own) | ((logits == own) & (index < label))  # (n, classes)
    return (ahead.sum(axis=1) < k) & has_class


def multilabel(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well any number of classes an image were found.

    Args:
        logits: (n, classes), of all images: a ranking is no sum over batches.
        labels: whether each class is there (n, classes).

    Returns:
        `mean_average_precision` over the classes that there are; `f1`, over all decisions, and `macro_f1`, its mean
        over classes, where a class is found at a probability of a half. 0 to 1; scikit-learn's.
    """
    from sklearn.metrics import average_precision_score, f1_score

    there, found = labels > 0.5, logits > 0
    present = there.any(axis=0)
    of_nothing: dict[str, Any] = {"zero_division": 0}
    ranked = average_precision_score(there[:, present], logits[:, present]) if present.any() else 0.0
    return {
        "mean_average_precision": float(ranked),
        "f1": float(f1_score(there, found, average="micro", **of_nothing)),
        "macro_f1": float(f1_score(there, found, average="macro", **of_nothing)),
    }


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Divide summed metrics by their `count`.

    Args:
        sums: metric -> sum, and `count`, the examples summed over.

    Returns:
        metric -> mean, without `count`.
    """
    return {name: float(total) / float(sums["count"]) for name, total in sums.items() if name != "count"}
