"""What a network costs: parameters and multiply-adds, without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxcnn.layers import Conv, Linear
from flaxcnn.models import Classifier


class Cost(NamedTuple):
    """Of one image through a network in evaluation."""

    parameters: int
    """Trainable numbers, those of auxiliary heads included."""
    macs: int
    """Multiply-adds of convolutions and fully connected layers."""


def cost(model: Classifier, *, image_size: int | None = None, channels: int = 3) -> Cost:
    """Count parameters and multiply-adds by tracing the network's shapes.

    Args:
        model: from `create_model`.
        image_size: height and width in pixels; None for the model's own.
        channels: of the image.

    Returns:
        The counts; normalisation, activations and pooling are not counted, as in the papers' tables.
    """
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    macs = 0

    def count(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal macs
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, (Conv, Linear)):
            kernel = context.module.variables["params"]["kernel"]
            macs += output.size * kernel.size // kernel.shape[-1]
        return output

    with nn.intercept_methods(count):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    return Cost(sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), macs)
