"""GoogLeNet as first published: biased convolutions without normalisation, and true 5x5 convolutions.

The table is `googlenet`'s, but that the pool between 4e and 5a is 3x3 too. An auxiliary head is

    layer              output
    avg pool 5x5, /3   4x4
    conv 1x1           4x4, 128
    dropout 0.5
    fully connected    1024
    dropout 0.5
    fully connected    classes

Reference: Szegedy et al., Going Deeper with Convolutions, arXiv 1409.4842.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
from jax import Array
from jax.nn.initializers import zeros

from flaxcnn.layers import Conv, Layer, Linear, avg_pool, flatten, global_avg_pool, max_pool
from flaxcnn.layers.initializers import kaiming_fan_out, normal
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.googlenet import GoogLeNetOutputs, inception_trunk
from flaxcnn.models.registry import register


class BiasedConv(nn.Module):
    """Convolution with bias, ReLU."""

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    conv: Layer = Conv

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h', w', features)."""
        return nn.relu(
            self.conv(self.features, self.kernel_size, strides=self.strides, padding=self.padding, name="conv")(x)
        )


class AuxiliaryHead(nn.Module):
    """A classifier on an inner feature map, for training only. The parameters of `fc1` fix the image size."""

    num_classes: int
    dropout: Layer
    basic_conv: Layer
    linear: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Feature map (n, 14, 14, c) to logits (n, num_classes)."""
        dropout = self.dropout(name="dropout")
        x = avg_pool(x, 5, 3)  # (n, 4, 4, c)
        x = dropout(flatten(self.basic_conv(128, 1, name="conv")(x)))  # (n, 128 * 4 * 4)
        x = dropout(nn.relu(self.linear(1024, name="fc1")(x)))
        return self.linear(self.num_classes, name="fc2")(x)


class InceptionV1(Classifier, kw_only=True):
    """GoogLeNet without batch normalisation.

    Attributes:
        aux_heads: whether there are auxiliary heads; if so, their logits are returned too in training.
            They are what sets `min_image_size`: without them, 31 pixels are enough.
        dropout: rate before the classifier; 0 also switches off the auxiliary heads' 0.5.
    """

    aux_heads: bool = True
    dropout: float = 0.4
    min_image_size: int = 79

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array | GoogLeNetOutputs:
        """Images (n, h, w, c) to logits (n, num_classes); in training with `aux_heads`, to those of all heads."""
        self.check(images)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, kernel_init=kaiming_fan_out, bias_init=zeros, **dtypes)
        linear = partial(Linear, kernel_init=normal(0.01), bias_init=zeros, **dtypes)
        basic_conv = partial(BiasedConv, conv=conv)

        pool4 = partial(max_pool, window=3, strides=2, ceil_mode=True)
        x, x4a, x4d = inception_trunk(images, basic_conv=basic_conv, kernel_size=5, pool4=pool4)
        x = global_avg_pool(x)  # (n, 1024)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        logits = linear(self.num_classes, name="fc")(x)
        # Initialisation makes the heads' parameters in evaluation too, so that variables do not depend on `train`.
        if not (self.aux_heads and (train or self.is_initializing())):
            return logits
        dropout = partial(nn.Dropout, 0.5 if self.dropout else 0.0, deterministic=not train)
        head = partial(AuxiliaryHead, self.num_classes, dropout, basic_conv, linear)
        aux_logits1, aux_logits2 = head(name="aux1")(x4a), head(name="aux2")(x4d)
        return GoogLeNetOutputs(logits, aux_logits2, aux_logits1) if train else logits


register("inception_v1", InceptionV1)
