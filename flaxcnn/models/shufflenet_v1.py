"""ShuffleNet (V1), as pytorchcv builds it.

    layer       output  units           channels g=1   2      3      4      8
    init_block  112     3x3, stride 2   24             24     24     24     24
                56      max pool 3x3, stride 2
    stage1      28      4               144            200    240    272    384
    stage2      14      8               288            400    480    544    768
    stage3      7       4               576            800    960    1088   1536
    output      1       global average pool, fully connected
    million multiply-adds               143            141    138    134    138

The first unit of a stage has stride 2. A width multiplies all channels, the 24 of `init_block` too (the paper's 1.5x
with 3 groups, of 292 million multiply-adds, keeps them: `stem=24`). Widths 0.5 and 1.5 exist where the groups divide
every convolution's channels: not with 2 or 4 groups, and with 8 only for the 16 and 24 channels of `init_block` in
the authors' own release.

Reference: Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices,
arXiv 1707.01083.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import he_uniform

from flaxcnn.layers import BatchNorm, Conv, Layer, Linear, avg_pool, channel_shuffle, global_avg_pool, max_pool
from flaxcnn.layers.once import once
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

UNITS = (4, 8, 4)
# Channels of the first stage by groups; each later stage has twice as many.
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}


class InitBlock(nn.Module):
    """3x3 convolution and max pooling, each with stride 2."""

    features: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / 4, w / 4, features)."""
        x = self.conv(self.features, 3, strides=2, padding=1, name="conv")(x)
        return max_pool(nn.relu(self.norm(name="bn")(x)), 3, 2, 1)


class Unit(nn.Module):
    """Grouped 1x1 to narrow, shuffle, 3x3 depthwise, grouped 1x1 to widen.

    With stride 1 the input is added; with stride 2 it is averaged and its channels are appended.
    """

    features: int
    strides: int
    groups: int
    first_groups: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        narrow = self.features // 4
        widened = self.features if self.strides == 1 else self.features - x.shape[-1]

        y = self.conv(narrow, 1, feature_group_count=self.first_groups, name="compress_conv1")(x)
        y = once(nn.relu(self.norm(name="compress_bn1")(y)))  # or every tap below would compute it, shuffled
        y = channel_shuffle(y, self.groups)
        y = self.conv(narrow, 3, strides=self.strides, padding=1, feature_group_count=narrow, name="dw_conv2")(y)
        y = self.norm(name="dw_bn2")(y)
        y = self.conv(widened, 1, feature_group_count=self.groups, name="expand_conv3")(y)
        y = self.norm(name="expand_bn3")(y)
        if self.strides == 1:
            return once(nn.relu(y + x))  # which every block of groups reads, and the next sum
        return nn.relu(jnp.concatenate([y, avg_pool(x, 3, 2, 1)], axis=-1))


class Stage(nn.Module):
    """Units, named "unit1" and on, of which the first has stride 2."""

    holds_blocks: ClassVar[bool] = True

    units: int
    unit: Layer
    first_groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / 2, w / 2, features)."""
        x = self.unit(strides=2, first_groups=self.first_groups, name="unit1")(x)
        for index in range(2, self.units + 1):
            x = self.unit(strides=1, name=f"unit{index}")(x)
        return x


class Features(nn.Module):
    """All of the network up to global pooling."""

    holds_blocks: ClassVar[bool] = True

    width: float
    groups: int
    stem: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / 32, w / 32, features)."""
        x = InitBlock(self.stem, conv=self.conv, norm=self.norm, name="init_block")(x)
        for index, units in enumerate(UNITS):
            features = int(CHANNELS[self.groups] * 2**index * self.width)
            unit = partial(Unit, features, groups=self.groups, first_groups=self.groups, conv=self.conv, norm=self.norm)
            # The few channels of `init_block` are not grouped.
            first_groups = 1 if index == 0 else self.groups
            x = Stage(units, unit, first_groups, name=f"stage{index + 1}")(x)
        return x


class ShuffleNetV1(Classifier, kw_only=True):
    """ShuffleNet.

    Attributes:
        groups: of the 1x1 convolutions: 1, 2, 3, 4 or 8.
        width: factor on all channels; the groups must divide what it gives.
        stem: channels of `init_block`; None for 24 * width.
    """

    groups: int
    width: float = 1.0
    stem: int | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        if self.groups not in CHANNELS:
            raise ValueError(f"groups must be one of {', '.join(map(str, CHANNELS))}, not {self.groups}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, use_bias=False, kernel_init=he_uniform(), **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **dtypes)

        stem = int(24 * self.width) if self.stem is None else self.stem
        x = Features(self.width, self.groups, stem, conv, norm, name="features")(images)
        x = global_avg_pool(x)  # (n, 4 * CHANNELS[groups] * width)
        if self.num_classes == 0:
            return x
        return Linear(self.num_classes, name="output", **dtypes)(x)


for _groups in CHANNELS:
    register(f"shufflenet_v1_g{_groups}", ShuffleNetV1, groups=_groups)
    register(f"shufflenet_v1_g{_groups}_x2_0", ShuffleNetV1, groups=_groups, width=2.0)
for _groups in (1, 3):
    register(f"shufflenet_v1_g{_groups}_x0_5", ShuffleNetV1, groups=_groups, width=0.5)
    register(f"shufflenet_v1_g{_groups}_x1_5", ShuffleNetV1, groups=_groups, width=1.5)
register("shufflenet_v1_g8_x0_5", ShuffleNetV1, groups=8, width=0.5, stem=16)
register("shufflenet_v1_g8_x1_5", ShuffleNetV1, groups=8, width=1.5, stem=24)
