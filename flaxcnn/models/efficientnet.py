"""EfficientNet, as torchvision builds it.

B0, which the others scale in width (channels, to a multiple of 8) and depth (layers, rounded up):

    stage  operator      stride  channels  layers
    1      Conv 3x3      2       32        1
    2      MBConv1, 3x3  1       16        1
    3      MBConv6, 3x3  2       24        2
    4      MBConv6, 5x5  2       40        2
    5      MBConv6, 3x3  2       80        3
    6      MBConv6, 5x5  1       112       3
    7      MBConv6, 5x5  2       192       4
    8      MBConv6, 3x3  1       320       1
    9      Conv 1x1, global average pool, fully connected

Reference: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
arXiv 1905.11946.
"""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
from jax import Array
from jax.nn import silu
from jax.nn.initializers import zeros

from flaxcnn.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Layer,
    Linear,
    Sequential,
    SqueezeExcite,
    StochasticDepth,
    global_avg_pool,
    make_divisible,
)
from flaxcnn.layers.initializers import kaiming_fan_out, uniform
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

# Expansion, kernel, stride, channels and layers of B0's stages 2 to 8.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class MBConv(nn.Module):
    """Inverted residual: 1x1 to widen, depthwise, squeeze-excite, linear 1x1, and a shortcut."""

    features: int
    kernel_size: int
    strides: int
    expansion: int
    drop: Layer
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        conv_norm_act = partial(ConvNormAct, activation=silu, conv=self.conv, norm=self.norm)
        inputs = x.shape[-1]
        hidden = make_divisible(inputs * self.expansion)
        expand = [partial(conv_norm_act, hidden, 1)] if hidden != inputs else []
        y = Sequential(
            [
                *expand,
                partial(conv_norm_act, hidden, self.kernel_size, strides=self.strides, groups=hidden),
                # Squeezed to a quarter of the block's input, not of the widened channels.
                partial(SqueezeExcite, max(1, inputs // 4), conv=self.conv, activation=silu),
                partial(conv_norm_act, self.features, 1, activation=None),
            ],
            name="block",
        )(x)
        if self.strides != 1 or inputs != self.features:
            return y
        return x + self.drop(name="stochastic_depth")(y)


class EfficientNet(Classifier, kw_only=True):
    """EfficientNet.

    Attributes:
        width: factor on B0's channels.
        depth: factor on B0's layers.
        dropout: rate before the classifier.
        stochastic_depth: rate of the last block; earlier ones rise to it linearly from 0.
        epsilon: BatchNorm's.
        momentum: BatchNorm's, PyTorch's sense.
    """

    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, kernel_init=kaiming_fan_out, bias_init=zeros, **dtypes)
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            axis_name=self.axis_name,
            momentum=self.momentum,
            epsilon=self.epsilon,
            **dtypes,
        )
        conv_norm_act = partial(ConvNormAct, activation=silu, conv=conv, norm=norm)

        depths = [math.ceil(layers * self.depth) for *_, layers in STAGES]
        blocks_done, stages = 0, []
        for (expansion, kernel_size, strides, channels, _), depth in zip(STAGES, depths, strict=True):
            stage = []
            for index in range(depth):
                rate = self.stochastic_depth * blocks_done / sum(depths)
                drop = partial(StochasticDepth, rate=rate, deterministic=not train)
                stage.append(
                    partial(
                        MBConv,
                        features=make_divisible(channels * self.width),
                        kernel_size=kernel_size,
                        strides=strides if index == 0 else 1,
                        expansion=expansion,
                        drop=drop,
                        conv=conv,
                        norm=norm,
                    )
                )
                blocks_done += 1
            stages.append(partial(Sequential, stage))
        stem = partial(conv_norm_act, make_divisible(32 * self.width), 3, strides=2)
        head = partial(conv_norm_act, 4 * make_divisible(320 * self.width), 1)
        x = Sequential([stem, *stages, head], name="features")(images)  # (n, h/32, w/32, 1280 * width)
        x = global_avg_pool(x)
        if self.num_classes == 0:
            return x
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        linear = partial(
            Linear, self.num_classes, kernel_init=uniform(self.num_classes**-0.5), bias_init=zeros, **dtypes
        )
        return Sequential([dropout, linear], name="classifier")(x)


# name, width, depth, image size, dropout
_ROWS = [
    ("efficientnet_b0", 1.0, 1.0, 224, 0.2),
    ("efficientnet_b1", 1.0, 1.1, 240, 0.2),
    ("efficientnet_b2", 1.1, 1.2, 288, 0.3),
    ("efficientnet_b3", 1.2, 1.4, 300, 0.3),
    ("efficientnet_b4", 1.4, 1.8, 380, 0.4),
    ("efficientnet_b5", 1.6, 2.2, 456, 0.4),
    ("efficientnet_b6", 1.8, 2.6, 528, 0.5),
    ("efficientnet_b7", 2.0, 3.1, 600, 0.5),
]
for _name, _width, _depth, _size, _dropout in _ROWS:
    # The three largest were published with TensorFlow's BatchNorm constants.
    _norm = {"epsilon": 1e-3, "momentum": 0.01} if _name >= "efficientnet_b5" else {}
    register(_name, EfficientNet, width=_width, depth=_depth, image_size=_size, dropout=_dropout, **_norm)
