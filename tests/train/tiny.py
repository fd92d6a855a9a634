"""Networks small enough to compile in a moment, and batches for them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxcnn.layers import BatchNorm, Conv, Linear, global_avg_pool
from flaxcnn.models.classifier import Classifier

SIZE, CLASSES = 8, 3


class Tiny(Classifier, kw_only=True):
    """Convolution, BatchNorm, dropout, linear."""

    num_classes: int = CLASSES
    image_size: int = SIZE
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        x = Conv(8, 3, name="conv")(images)  # what 2, 4 and 8 devices divide
        x = nn.relu(BatchNorm(use_running_average=not train, axis_name=self.axis_name, name="norm")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(global_avg_pool(x))
        return Linear(self.num_classes, name="fc")(x)


class Outputs(NamedTuple):
    logits: Array
    aux_logits2: Array
    aux_logits1: Array


class TinyWithHeads(Classifier, kw_only=True):
    """A linear network with two auxiliary heads."""

    num_classes: int = CLASSES
    image_size: int = SIZE

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array | Outputs:
        x = images.mean(axis=(1, 2))  # (n, 3)
        logits, aux2, aux1 = (Linear(self.num_classes, name=name)(x) for name in ("fc", "aux2", "aux1"))
        return Outputs(logits, aux2, aux1) if train else logits


def make_batch(seed: int = 0, n: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(n, SIZE, SIZE, 3)).astype(np.float32),
        "label": random.integers(CLASSES, size=n).astype(np.int32),
    }


def make_variables(model: Classifier, seed: int = 0) -> dict:
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    return jax.jit(partial(model.init, train=False))(jax.random.key(seed), images)


def assert_identical(one, other) -> None:
    """The same tree, bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def assert_close(one, other, **tolerance: float) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def differ(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
