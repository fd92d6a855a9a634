"""MobileNet (V1), as timm builds it: `mobilenetv1_100`, with ReLU6.

Every block is a 3x3 depthwise convolution and a 1x1 convolution, each with BatchNorm and ReLU6:

    stage      output  channels  blocks  stride of the first
    conv_stem  112     32        3x3 convolution, stride 2
    blocks 0   112     64        1       1
    blocks 1   56      128       2       2
    blocks 2   28      256       2       2
    blocks 3   14      512       6       2
    blocks 4   7       1024      2       2
    classifier 1       global average pool, fully connected

Width 1 takes 569 million multiply-adds, 0.75 takes 325, 0.5 takes 149, 0.25 takes 41. Unlike the published
table, whose last block has stride 2 by a misprint, that block keeps the 7x7 map.

Reference: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
arXiv 1704.04861.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jax import Array
from jax.nn import relu6
from jax.nn.initializers import zeros

from flaxcnn.layers import BatchNorm, Conv, Layer, Linear, Sequential, global_avg_pool, make_divisible
from flaxcnn.layers.initializers import kaiming_fan_in, kaiming_fan_out, uniform
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

# Channels, blocks and the stride of the first.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class DepthwiseSeparable(nn.Module):
    """3x3 depthwise convolution, then 1x1."""

    features: int
    strides: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        channels = x.shape[-1]
        depthwise = partial(self.conv, feature_group_count=channels, kernel_init=kaiming_fan_in)
        x = depthwise(channels, 3, strides=self.strides, padding=1, name="conv_dw")(x)
        x = relu6(self.norm(name="bn1")(x))
        x = self.conv(self.features, 1, name="conv_pw")(x)
        return relu6(self.norm(name="bn2")(x))


class MobileNetV1(Classifier, kw_only=True):
    """MobileNet.

    Attributes:
        width: factor on all channels.
        dropout: rate before the classifier.
    """

    width: float = 1.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, use_bias=False, kernel_init=kaiming_fan_out, **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **dtypes)

        stem = make_divisible(32 * self.width)
        x = conv(stem, 3, strides=2, padding=1, name="conv_stem")(images)  # (n, h/2, w/2, 32 * width)
        x = relu6(norm(name="bn1")(x))
        stages = []
        for channels, depth, first_stride in STAGES:
            block = partial(DepthwiseSeparable, make_divisible(channels * self.width), conv=conv, norm=norm)
            strides = [first_stride] + [1] * (depth - 1)
            stages.append(partial(Sequential, [partial(block, strides=s) for s in strides]))
        x = Sequential(stages, name="blocks")(x)  # (n, h/32, w/32, 1024 * width)
        x = global_avg_pool(x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = uniform(self.num_classes**-0.5)
        return Linear(self.num_classes, kernel_init=init, bias_init=zeros, name="classifier", **dtypes)(x)


register("mobilenet_v1", MobileNetV1)
register("mobilenet_v1_075", MobileNetV1, width=0.75)
register("mobilenet_v1_050", MobileNetV1, width=0.5)
register("mobilenet_v1_025", MobileNetV1, width=0.25)
