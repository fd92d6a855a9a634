"""ResNet, wide ResNet and ResNeXt, as torchvision builds them.

Version 1.5: the 3x3 convolution of a bottleneck carries the stride.

    stage    output   18          34          50            101           152
    conv1    112      7x7, 64, stride 2; then 3x3 max pool, stride 2 -> 56
    layer1   56       [3x3, 64 ]  [3x3, 64 ]  [1x1, 64 ]
                      [3x3, 64 ]  [3x3, 64 ]  [3x3, 64 ]
                      x 2         x 3         [1x1, 256] x 3, 3, 3
    layer2   28       128, x 2    x 4         128 -> 512,  x 4, 4, 8
    layer3   14       256, x 2    x 6         256 -> 1024, x 6, 23, 36
    layer4   7        512, x 2    x 3         512 -> 2048, x 3, 3, 3
    fc       1        global average pool, classes

The 3x3 convolution of a bottleneck has twice the channels in a wide ResNet; in a ResNeXt 32x4d it has
32 groups of 4 channels in layer1 (8, 16, 32 in the others).

References: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385; Zagoruyko and
Komodakis, Wide Residual Networks, arXiv 1605.07146; Xie et al., Aggregated Residual Transformations for
Deep Neural Networks, arXiv 1611.05431.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
from jax import Array

from flaxcnn.layers import BatchNorm, Conv, Layer, Linear, Sequential, global_avg_pool, max_pool
from flaxcnn.layers.initializers import kaiming_fan_out
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    planes: int
    strides: int
    conv: Layer
    norm: Layer
    expansion = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, planes)."""
        y = self.conv(self.planes, 3, strides=self.strides, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.planes, 3, padding=1, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(y + shortcut(x, self.planes, self.strides, self.conv, self.norm))


class Bottleneck(nn.Module):
    """1x1 to narrow, 3x3 (grouped in ResNeXt, wider in wide ResNet), 1x1 to widen, and a shortcut."""

    planes: int
    strides: int
    conv: Layer
    norm: Layer
    groups: int = 1
    base_width: int = 64
    expansion = 4

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, 4 planes)."""
        width = self.planes * self.base_width // 64 * self.groups
        features = self.planes * self.expansion
        y = nn.relu(self.norm(name="bn1")(self.conv(width, 1, name="conv1")(x)))
        y = self.conv(width, 3, strides=self.strides, padding=1, feature_group_count=self.groups, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(self.conv(features, 1, name="conv3")(y))
        return nn.relu(y + shortcut(x, features, self.strides, self.conv, self.norm))


def shortcut(x: Array, features: int, strides: int, conv: Layer, norm: Layer) -> Array:
    """x itself, or projected by a 1x1 convolution where a block changes its shape."""
    if x.shape[-1] == features and strides == 1:
        return x
    return Sequential([partial(conv, features, 1, strides=strides), norm], name="downsample")(x)


class ResNet(Classifier, kw_only=True):
    """ResNet, wide ResNet and ResNeXt.

    Attributes:
        block: `BasicBlock` or a partial of `Bottleneck`.
        depths: blocks in each of the four stages.
        stem: "7x7" with stride 2 and a max pool, as published; or "3x3" with stride 1 and no pool, for
            images of 32 pixels.
    """

    block: Layer
    depths: Sequence[int]
    stem: Literal["7x7", "3x3"] = "7x7"

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        conv = partial(
            Conv, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=kaiming_fan_out
        )
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

        if self.stem == "7x7":
            x = conv(64, 7, strides=2, padding=3, name="conv1")(images)  # (n, h/2, w/2, 64)
            x = max_pool(nn.relu(norm(name="bn1")(x)), 3, 2, 1)  # (n, h/4, w/4, 64)
        else:
            x = conv(64, 3, padding=1, name="conv1")(images)  # (n, h, w, 64)
            x = nn.relu(norm(name="bn1")(x))
        for stage, depth in enumerate(self.depths):
            block = partial(self.block, planes=64 * 2**stage, conv=conv, norm=norm)
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            x = Sequential([partial(block, strides=s) for s in strides], name=f"layer{stage + 1}")(x)
        x = global_avg_pool(x)  # (n, 512 * expansion)
        if self.num_classes == 0:
            return x
        return Linear(self.num_classes, dtype=self.dtype, param_dtype=self.param_dtype, name="fc")(x)


register("resnet18", ResNet, block=BasicBlock, depths=(2, 2, 2, 2))
register("resnet34", ResNet, block=BasicBlock, depths=(3, 4, 6, 3))
register("resnet50", ResNet, block=Bottleneck, depths=(3, 4, 6, 3))
register("resnet101", ResNet, block=Bottleneck, depths=(3, 4, 23, 3))
register("resnet152", ResNet, block=Bottleneck, depths=(3, 8, 36, 3))
register("wide_resnet50_2", ResNet, block=partial(Bottleneck, base_width=128), depths=(3, 4, 6, 3))
register("wide_resnet101_2", ResNet, block=partial(Bottleneck, base_width=128), depths=(3, 4, 23, 3))
register("resnext50_32x4d", ResNet, block=partial(Bottleneck, groups=32, base_width=4), depths=(3, 4, 6, 3))
register("resnext101_32x8d", ResNet, block=partial(Bottleneck, groups=32, base_width=8), depths=(3, 4, 23, 3))
register("resnext101_64x4d", ResNet, block=partial(Bottleneck, groups=64, base_width=4), depths=(3, 4, 23, 3))
