"""Another head on a network's pooled features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
from jax import Array

from flaxcnn.layers import Linear, Sequential
from flaxcnn.models.classifier import Classifier


class WithHead(Classifier, kw_only=True):
    """A network's pooled features, and a stack of fully connected layers on them.

    Attributes:
        backbone: the network, with `num_classes=0`. Its variables are those named `backbone`.
        widths: of the hidden layers of the head, each followed by ReLU; none makes it a single layer.
    """

    backbone: Classifier
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # It is the backbone that has BatchNorm: `clone(axis_name=...)` means it too.
        if self.backbone.axis_name != self.axis_name:
            self.backbone = self.backbone.clone(axis_name=self.axis_name)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        x = self.backbone(images, train=train)  # (n, features)
        if self.num_classes == 0:
            return x
        linear = partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)
        layers: list[Callable[..., Any]] = []
        for width in self.widths:
            layers += [partial(linear, width), nn.relu]
        return Sequential([*layers, partial(linear, self.num_classes)], name="head")(x)


def with_head(model: Classifier, *widths: int) -> WithHead:
    """The model with a new head in the place of its own.

    Args:
        model: from `create_model`, with as many classes as the new one is to have.
        widths: of the head's hidden layers.

    Returns:
        A model whose variables are `backbone` and `head`.

    Raises:
        ValueError: when a width is not a whole number above 0.
    """
    for width in widths:
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"a head's widths must be whole numbers above 0, not {width!r}")
    return WithHead(
        backbone=model.clone(num_classes=0),
        widths=widths,
        num_classes=model.num_classes,
        dtype=model.dtype,
        param_dtype=model.param_dtype,
        image_size=model.image_size,
        min_image_size=model.min_image_size,
        axis_name=model.axis_name,
    )
