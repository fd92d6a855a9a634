"""Mixing of the examples of a batch, on the device: mixup, CutMix, or one of both at random.

A mixing is a function of a key and a batch to a batch, whose labels are probabilities (n, classes). Each example is
mixed with the one before it, in one proportion for the whole batch, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array, lax

Batch = Mapping[str, Array]
Mixing = Callable[[Array, Batch], dict[str, Array]]


def mixup(num_classes: int, *, alpha: float = 1.0) -> Mixing:
    """`torchvision.transforms.v2.MixUp` (Zhang et al., arXiv 1710.09412).

    Args:
        num_classes: of the labels.
        alpha: the share of an example is drawn from Beta(alpha, alpha).
    """

    def mix(key: Array, batch: Batch) -> dict[str, Array]:
        return blend(batch, jax.random.beta(key, alpha, alpha), num_classes)

    return mix


def cutmix(num_classes: int, *, alpha: float = 1.0) -> Mixing:
    """`torchvision.transforms.v2.CutMix` (Yun et al., arXiv 1905.04899).

    Args:
        num_classes: of the labels.
        alpha: the share of an example's area is drawn from Beta(alpha, alpha).
    """

    def mix(key: Array, batch: Batch) -> dict[str, Array]:
        share, x, y = jax.random.split(key, 3)
        height, width = batch["image"].shape[1:3]
        centre = jax.random.randint(y, (), 0, height), jax.random.randint(x, (), 0, width)
        return paste(batch, jax.random.beta(share, alpha, alpha), centre, num_classes)

    return mix


def choice(*mixings: Mixing) -> Mixing:
    """One of the mixings for each batch, all equally likely."""

    def mix(key: Array, batch: Batch) -> dict[str, Array]:
        which, key = jax.random.split(key)
        return lax.switch(jax.random.randint(which, (), 0, len(mixings)), mixings, key, batch)

    return mix


def blend(batch: Batch, share: Array, num_classes: int) -> dict[str, Array]:
    """Each example times its share, and the one before it times the rest.

    Args:
        batch: `image` (n, h, w, c), `label` indices (n,) or probabilities (n, classes).
        share: () from 0 to 1.
        num_classes: of the labels.
    """

    def mixed(x: Array) -> Array:
        return (jnp.roll(x, 1, axis=0) * (1 - share) + x * share).astype(x.dtype)

    return {**batch, "image": mixed(batch["image"]), "label": mixed(_probabilities(batch["label"], num_classes))}


def paste(batch: Batch, share: Array, centre: tuple[Array, Array], num_classes: int) -> dict[str, Array]:
    """A box of the example before pasted into each.

    Args:
        batch: `image` (n, h, w, c), `label` indices (n,) or probabilities (n, classes).
        share: of its area that an example keeps, () from 0 to 1, where the box lies within the image.
        centre: row and column of the box, which is cut at the edges of the image; the labels have the shares left.
        num_classes: of the labels.
    """
    images = batch["image"]
    size = images.shape[1:3]
    inside, area = [], jnp.ones(())
    for middle, length in zip(centre, size, strict=True):
        half = (0.5 * jnp.sqrt(1 - share) * length).astype(jnp.int32)
        low, high = jnp.maximum(middle - half, 0), jnp.minimum(middle + half, length)
        position = jnp.arange(length)
        inside.append((low <= position) & (position < high))
        area *= high - low
    box = inside[0].reshape(1, -1, 1, 1) & inside[1].reshape(1, 1, -1, 1)
    labels = _probabilities(batch["label"], num_classes)
    kept = (1 - area / (size[0] * size[1])).astype(labels.dtype)
    return {
        **batch,
        "image": jnp.where(box, jnp.roll(images, 1, axis=0), images),
        "label": jnp.roll(labels, 1, axis=0) * (1 - kept) + labels * kept,
    }


def _probabilities(labels: Array, num_classes: int) -> Array:
    return jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else labels
