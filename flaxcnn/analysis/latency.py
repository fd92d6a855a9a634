"""How long a network takes for an image on this machine."""

from __future__ import annotations

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp

from flaxcnn.models import Classifier, abstract_variables

_SECONDS, _FEWEST = 1.0, 5


def latency(model: Classifier, *, image_size: int | None = None, channels: int = 3) -> float:
    """Measure one image through a network in evaluation, compiled, on JAX's default device.

    Args:
        model: from `create_model`. Its weights are zeros meanwhile.
        image_size: height and width in pixels; None for the model's own.
        channels: of the image.

    Returns:
        Seconds: the median of what fits into one second, and of five at least.
    """
    size = image_size or model.image_size
    images = jnp.zeros((1, size, size, channels))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract_variables(model, channels, size))
    apply = jax.jit(partial(model.apply, train=False)).lower(variables, images).compile()
    apply(variables, images).block_until_ready()  # The first call also makes room for itself.
    took: list[float] = []
    while sum(took) < _SECONDS or len(took) < _FEWEST:
        began = time.perf_counter()
        apply(variables, images).block_until_ready()
        took.append(time.perf_counter() - began)
    return statistics.median(took)
