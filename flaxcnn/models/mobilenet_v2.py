"""MobileNetV2, as torchvision builds it.

    operator         output  expansion  channels  blocks  stride of the first
    3x3 convolution  112                32        1       2
    bottleneck       112     1          16        1       1
    bottleneck       56      6          24        2       2
    bottleneck       28      6          32        3       2
    bottleneck       14      6          64        4       2
    bottleneck       14      6          96        3       1
    bottleneck       7       6          160       3       2
    bottleneck       7       6          320       1       1
    1x1 convolution  7                  1280      1       1
    global average pool, fully connected

301 million multiply-adds.

Reference: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv 1801.04381.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jax import Array
from jax.nn import relu6
from jax.nn.initializers import normal, zeros

from flaxcnn.layers import BatchNorm, Conv, ConvNormAct, Layer, Linear, Sequential, global_avg_pool, make_divisible
from flaxcnn.layers.initializers import kaiming_fan_out
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

# Expansion, channels, blocks and the stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Bottleneck(nn.Module):
    """Inverted residual with a linear bottleneck: 1x1 to widen, 3x3 depthwise, linear 1x1, and a shortcut."""

    features: int
    strides: int
    expansion: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        conv_norm_act = partial(ConvNormAct, activation=relu6, conv=self.conv, norm=self.norm)
        inputs = x.shape[-1]
        hidden = inputs * self.expansion
        expand = [partial(conv_norm_act, hidden, 1)] if self.expansion != 1 else []
        y = Sequential(
            [
                *expand,
                partial(conv_norm_act, hidden, 3, strides=self.strides, groups=hidden),
                partial(self.conv, self.features, 1, use_bias=False),
                self.norm,
            ],
            name="conv",
        )(x)
        return x + y if self.strides == 1 and inputs == self.features else y


class MobileNetV2(Classifier, kw_only=True):
    """MobileNetV2.

    Attributes:
        width: factor on all channels, rounded to multiples of 8; the last 1280 only grow.
        dropout: rate before the classifier.
    """

    width: float = 1.0
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, kernel_init=kaiming_fan_out, **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **dtypes)
        conv_norm_act = partial(ConvNormAct, activation=relu6, conv=conv, norm=norm)

        stem = partial(conv_norm_act, make_divisible(32 * self.width), 3, strides=2)
        blocks = []
        for expansion, channels, depth, first_stride in STAGES:
            features = make_divisible(channels * self.width)
            block = partial(Bottleneck, features, expansion=expansion, conv=conv, norm=norm)
            blocks += [partial(block, strides=s) for s in [first_stride] + [1] * (depth - 1)]
        head = partial(conv_norm_act, make_divisible(1280 * max(1.0, self.width)), 1)
        x = Sequential([stem, *blocks, head], name="features")(images)  # (n, h/32, w/32, 1280)
        x = global_avg_pool(x)
        if self.num_classes == 0:
            return x
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        linear = partial(Linear, self.num_classes, kernel_init=normal(0.01), bias_init=zeros, **dtypes)
        return Sequential([dropout, linear], name="classifier")(x)


register("mobilenet_v2", MobileNetV2)
