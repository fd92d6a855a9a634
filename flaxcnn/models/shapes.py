"""The shapes of a model's variables."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from flaxcnn.layers import conv_lowering
from flaxcnn.models.classifier import Classifier


def abstract_variables(
    model: Classifier, channels: int = 3, image_size: int | tuple[int, int] | None = None
) -> dict[str, Any]:
    """Shapes and dtypes of the model's variables, without computing any.

    Args:
        model: from `create_model`.
        channels: of the images.
        image_size: height and width in pixels; None for the model's own.

    Raises:
        ValueError: when the model cannot compute such images.
    """
    size = model.image_size if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    with conv_lowering("xla"):  # shapes are the same, and traced in half the time
        return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
