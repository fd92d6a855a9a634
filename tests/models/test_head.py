"""Another head on a network."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from flaxcnn.layers import BatchNorm, Conv, global_avg_pool
from flaxcnn.models import Classifier, with_head


class Backbone(Classifier, kw_only=True):
    """A convolution with BatchNorm, down to the pooled features."""

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        norm = BatchNorm(use_running_average=not train, axis_name=self.axis_name, name="norm")
        return global_avg_pool(norm(Conv(4, 3, name="conv")(images)))


def test_the_axis_of_a_model_is_its_backbones_too() -> None:
    """Two halves of a batch, mapped over, give the statistics of the whole."""
    random = np.random.default_rng(0)
    images = random.normal(size=(8, 5, 5, 3)).astype(np.float32) * np.arange(1, 9, dtype=np.float32).reshape(
        -1, 1, 1, 1
    )
    model = with_head(Backbone(num_classes=3), 6)
    variables = model.init(jax.random.key(0), images, train=False)
    apply = partial(model.apply, variables, train=True, mutable=["batch_stats"])
    whole = jax.tree.leaves(apply(images))
    for mapped in (model.clone(axis_name="data"), with_head(Backbone(num_classes=3, axis_name="data"), 6)):
        apply = partial(mapped.apply, variables, train=True, mutable=["batch_stats"])
        logits, updates = jax.vmap(apply, axis_name="data")(images.reshape(2, 4, 5, 5, 3))
        halves = [logits.reshape(8, 3), *(leaf[1] for leaf in jax.tree.leaves(updates))]
        for half, expected in zip(halves, whole, strict=True):
            np.testing.assert_allclose(half, expected, rtol=1e-4, atol=1e-5)
