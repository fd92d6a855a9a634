"""EfficientNet-Lite, as timm builds it: `tf_efficientnet_lite*`.

EfficientNet for devices without fast squeeze-and-excitation or swish: neither is there, the activation is ReLU6, and
scaling leaves the stem, the head and the depth of the first and the last stage alone. Convolutions are padded as
TensorFlow does ("SAME"). Lite0, which the others scale:

    stage     operator               kernel  stride  channels  layers
    conv_stem convolution            3x3     2       32        1
    blocks 0  depthwise separable    3x3     1       16        1
    blocks 1  inverted residual, 6x  3x3     2       24        2
    blocks 2  inverted residual, 6x  5x5     2       40        2
    blocks 3  inverted residual, 6x  3x3     2       80        3
    blocks 4  inverted residual, 6x  5x5     1       112       3
    blocks 5  inverted residual, 6x  5x5     2       192       4
    blocks 6  inverted residual, 6x  3x3     1       320       1
    conv_head convolution            1x1     1       1280      1
    global average pool, fully connected

    variant               Lite0  Lite1  Lite2  Lite3  Lite4
    width                 1.0    1.0    1.1    1.2    1.4
    depth                 1.0    1.1    1.2    1.4    1.8
    image                 224    240    260    280    300
    million multiply-adds 385    600    860    1383   2553

References: Tan and Le, EfficientNet, arXiv 1905.11946; the Lite variants come with the TensorFlow TPU models'
release (models/official/efficientnet/lite).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
from jax import Array
from jax.nn import relu6
from jax.nn.initializers import zeros

from flaxcnn.layers import (
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Sequential,
    StochasticDepth,
    global_avg_pool,
    make_divisible,
)
from flaxcnn.layers.initializers import kaiming_fan_in, kaiming_fan_out, uniform
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

# Kernel, stride, channels and layers of Lite0's inverted residuals, all widened six times.
STAGES = (
    (3, 2, 24, 2),
    (5, 2, 40, 2),
    (3, 2, 80, 3),
    (5, 1, 112, 3),
    (5, 2, 192, 4),
    (3, 1, 320, 1),
)
EXPANSION = 6


class DepthwiseSeparable(nn.Module):
    """3x3 depthwise, then a linear 1x1."""

    features: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h, w, features)."""
        x = depthwise(self.conv, x.shape[-1], 3)(x)
        x = relu6(self.norm(name="bn1")(x))
        x = self.conv(self.features, 1, name="conv_pw")(x)
        return self.norm(name="bn2")(x)


class InvertedResidual(nn.Module):
    """1x1 to widen, depthwise, linear 1x1, and a shortcut."""

    features: int
    kernel_size: int
    strides: int
    drop: Layer
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        inputs = x.shape[-1]
        hidden = inputs * EXPANSION
        y = self.conv(hidden, 1, name="conv_pw")(x)
        y = relu6(self.norm(name="bn1")(y))
        y = depthwise(self.conv, hidden, self.kernel_size, self.strides)(y)
        y = relu6(self.norm(name="bn2")(y))
        y = self.conv(self.features, 1, name="conv_pwl")(y)
        y = self.norm(name="bn3")(y)
        if self.strides != 1 or inputs != self.features:
            return y
        return x + self.drop(name="drop_path")(y)


def depthwise(conv: Layer, channels: int, kernel_size: int, strides: int = 1) -> nn.Module:
    """A convolution of every channel by itself."""
    return conv(
        channels,
        kernel_size,
        strides=strides,
        feature_group_count=channels,
        kernel_init=kaiming_fan_in,
        name="conv_dw",
    )


class EfficientNetLite(Classifier, kw_only=True):
    """EfficientNet-Lite.

    Attributes:
        width: factor on the channels of Lite0's stages, which are rounded to multiples of 8.
        depth: factor on their layers, rounded up.
        dropout: rate before the classifier.
        stochastic_depth: rate of the last block; earlier ones rise to it linearly from 0.
    """

    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    stochastic_depth: float = 0.2

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, use_bias=False, padding="SAME", kernel_init=kaiming_fan_out, **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, epsilon=1e-3, **dtypes)

        x = conv(32, 3, strides=2, name="conv_stem")(images)  # (n, h/2, w/2, 32)
        x = relu6(norm(name="bn1")(x))
        x = Sequential(self._stages(conv, norm, train), name="blocks")(x)  # (n, h/32, w/32, 320 * width)
        x = conv(1280, 1, name="conv_head")(x)
        x = relu6(norm(name="bn2")(x))
        x = global_avg_pool(x)  # (n, 1280)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = uniform(self.num_classes**-0.5)
        return Linear(self.num_classes, kernel_init=init, bias_init=zeros, name="classifier", **dtypes)(x)

    def _stages(self, conv: Layer, norm: Layer, train: bool) -> Sequence[Layer]:
        depths = [math.ceil(layers * self.depth) for *_, layers in STAGES[:-1]] + [STAGES[-1][-1]]
        first = partial(DepthwiseSeparable, make_divisible(16 * self.width), conv=conv, norm=norm)
        stages = [partial(Sequential, [first])]
        blocks_done, blocks = 1, 1 + sum(depths)
        for (kernel_size, first_stride, channels, _), depth in zip(STAGES, depths, strict=True):
            features = make_divisible(channels * self.width)
            stage = []
            for strides in [first_stride] + [1] * (depth - 1):
                rate = self.stochastic_depth * blocks_done / blocks
                drop = partial(StochasticDepth, rate=rate, deterministic=not train)
                stage.append(partial(InvertedResidual, features, kernel_size, strides, drop, conv, norm))
                blocks_done += 1
            stages.append(partial(Sequential, stage))
        return stages


# Image sizes and dropout are the release's; timm evaluates Lite3 and Lite4 at 300 and 380 pixels.
register("efficientnet_lite0", EfficientNetLite, width=1.0, depth=1.0, image_size=224, dropout=0.2)
register("efficientnet_lite1", EfficientNetLite, width=1.0, depth=1.1, image_size=240, dropout=0.2)
register("efficientnet_lite2", EfficientNetLite, width=1.1, depth=1.2, image_size=260, dropout=0.3)
register("efficientnet_lite3", EfficientNetLite, width=1.2, depth=1.4, image_size=280, dropout=0.3)
register("efficientnet_lite4", EfficientNetLite, width=1.4, depth=1.8, image_size=300, dropout=0.3)
