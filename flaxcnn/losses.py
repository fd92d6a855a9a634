"""Losses: an array of logits and labels in, one value an example out."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

Loss = Callable[[Array, Array], Array]


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, class_weights: ArrayLike | None = None
) -> Array:
    """`torch.nn.functional.cross_entropy`.

    Args:
        logits: (n, classes).
        labels: class indices (n,), or probabilities (n, classes). The loss of an index that is no class is NaN.
        label_smoothing: mass moved from the labels to the uniform distribution.
        class_weights: (classes,). The mean is PyTorch's: of indices, it is divided by the weights of their classes.

    Returns:
        (n,), in float32 at least.
    """
    logits = _at_least_float32(logits)
    if labels.ndim == 2:
        return _cross_entropy(logits, labels, label_smoothing, class_weights)
    if label_smoothing or class_weights is not None:
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        loss = _cross_entropy(logits, one_hot, label_smoothing, class_weights)
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if class_weights is not None:
        loss /= jnp.asarray(class_weights, logits.dtype)[labels].mean()
    is_class = (labels >= 0) & (labels < logits.shape[-1])  # -1 would count from the end
    return jnp.where(is_class, loss, jnp.nan)


def sigmoid_binary_cross_entropy(logits: Array, labels: Array, *, class_weights: ArrayLike | None = None) -> Array:
    """`torch.nn.functional.binary_cross_entropy_with_logits`, for images of any number of classes.

    Args:
        logits: (n, classes).
        labels: whether each class is there, or how probably (n, classes); or the only one's index (n,).
        class_weights: (classes,).

    Returns:
        The mean over classes (n,), in float32 at least.
    """
    logits = _at_least_float32(logits)
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[-1])
    losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
    if class_weights is not None:
        losses *= jnp.asarray(class_weights, logits.dtype)
    return losses.mean(axis=-1)


def distillation(
    loss: Loss, *, temperature: float = 1.0, weight: float = 0.5
) -> Callable[[Array, Array, Array], Array]:
    """A loss that a teacher's logits have a part in (Hinton et al., arXiv 1503.02531).

    Args:
        loss: of logits and labels.
        temperature: that both distributions are softened by; the gradient keeps its size.
        weight: of the teacher's part, the divergence of the student's distribution from the teacher's.

    Returns:
        A function of logits (n, classes), labels, and the teacher's logits (n, classes) to (n,).
    """

    def distilled(logits: Array, labels: Array, teacher: Array) -> Array:
        student, target = (jax.nn.log_softmax(_at_least_float32(each) / temperature) for each in (logits, teacher))
        divergence = optax.losses.kl_divergence_with_log_targets(student, target)
        return (1 - weight) * loss(logits, labels) + weight * temperature**2 * divergence

    return distilled


def _cross_entropy(
    logits: Array, probabilities: Array, label_smoothing: float, class_weights: ArrayLike | None
) -> Array:
    targets = optax.smooth_labels(probabilities.astype(logits.dtype), label_smoothing)
    if class_weights is not None:
        targets *= jnp.asarray(class_weights, logits.dtype)
    return optax.softmax_cross_entropy(logits, targets)


def _at_least_float32(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
