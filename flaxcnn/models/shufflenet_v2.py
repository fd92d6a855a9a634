"""ShuffleNetV2, as torchvision builds it.

    layer       output  units           channels x0.5  x1.0   x1.5   x2.0
    conv1       112     3x3, stride 2   24             24     24     24
    max pool    56      3x3, stride 2
    stage2      28      4               48             116    176    244
    stage3      14      8               96             232    352    488
    stage4      7       4               192            464    704    976
    conv5       7       1x1             1024           1024   1024   2048
    fc          1       global average pool, fully connected
    million multiply-adds               40             145    296    583

The first unit of a stage has stride 2.

Reference: Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, arXiv 1807.11164.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from flaxcnn.layers import BatchNorm, Conv, Layer, Linear, Sequential, channel_shuffle, global_avg_pool, max_pool
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

UNITS = (4, 8, 4)


class Unit(nn.Module):
    """With stride 1, half of the channels pass through; with stride 2, both branches compute. Then a shuffle."""

    features: int
    strides: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        half = self.features // 2
        pointwise = [partial(self.conv, half, 1), self.norm, nn.relu]
        if self.strides == 1:
            left, right = jnp.split(x, 2, axis=-1)
        else:
            left = Sequential([*self._depthwise(x.shape[-1]), *pointwise], name="branch1")(x)
            right = x
        right = Sequential([*pointwise, *self._depthwise(half), *pointwise], name="branch2")(right)
        return channel_shuffle(jnp.concatenate([left, right], axis=-1), 2)

    def _depthwise(self, channels: int) -> list[Layer]:
        conv = partial(self.conv, channels, 3, strides=self.strides, padding=1, feature_group_count=channels)
        return [conv, self.norm]


class ShuffleNetV2(Classifier, kw_only=True):
    """ShuffleNetV2.

    Attributes:
        channels: of the three stages.
        head: channels of conv5.
    """

    channels: tuple[int, int, int]
    head: int = 1024

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, use_bias=False, **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **dtypes)

        stem = [partial(conv, 24, 3, strides=2, padding=1), norm, nn.relu]
        x = Sequential(stem, name="conv1")(images)  # (n, h/2, w/2, 24)
        x = max_pool(x, 3, 2, 1)  # (n, h/4, w/4, 24)
        for stage, (channels, units) in enumerate(zip(self.channels, UNITS, strict=True), start=2):
            unit = partial(Unit, channels, conv=conv, norm=norm)
            strides = [2] + [1] * (units - 1)
            x = Sequential([partial(unit, strides=s) for s in strides], name=f"stage{stage}")(x)
        x = Sequential([partial(conv, self.head, 1), norm, nn.relu], name="conv5")(x)  # (n, h/32, w/32, head)
        x = global_avg_pool(x)
        if self.num_classes == 0:
            return x
        return Linear(self.num_classes, name="fc", **dtypes)(x)


register("shufflenet_v2_x0_5", ShuffleNetV2, channels=(48, 96, 192))
register("shufflenet_v2_x1_0", ShuffleNetV2, channels=(116, 232, 464))
register("shufflenet_v2_x1_5", ShuffleNetV2, channels=(176, 352, 704))
register("shufflenet_v2_x2_0", ShuffleNetV2, channels=(244, 488, 976), head=2048)
