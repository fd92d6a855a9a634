"""MobileNetV3, as torchvision builds it.

Both open with a 3x3 convolution of stride 2 (16 channels, hard-swish) and close with a 1x1 convolution to six
times the last block's channels, global average pooling, a hidden layer (1280 in Large, 1024 in Small) and the
classifier. The tables of blocks (Tables 1 and 2 of the paper) are `LARGE` and `SMALL` below: 217 and 57 million
multiply-adds.

Reference: Howard et al., Searching for MobileNetV3, arXiv 1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
from jax import Array
from jax.nn import hard_sigmoid, hard_swish, relu
from jax.nn.initializers import normal, zeros

from flaxcnn.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Layer,
    Linear,
    Sequential,
    SqueezeExcite,
    global_avg_pool,
    make_divisible,
)
from flaxcnn.layers.initializers import kaiming_fan_out
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

# Kernel, widened channels, output channels, squeeze-and-excitation, activation, stride.
Row = tuple[int, int, int, bool, Callable[[Array], Array], int]

LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, relu, 1),  # 112x112
    (3, 64, 24, False, relu, 2),  # 56x56
    (3, 72, 24, False, relu, 1),
    (5, 72, 40, True, relu, 2),  # 28x28
    (5, 120, 40, True, relu, 1),
    (5, 120, 40, True, relu, 1),
    (3, 240, 80, False, hard_swish, 2),  # 14x14
    (3, 200, 80, False, hard_swish, 1),
    (3, 184, 80, False, hard_swish, 1),
    (3, 184, 80, False, hard_swish, 1),
    (3, 480, 112, True, hard_swish, 1),
    (3, 672, 112, True, hard_swish, 1),
    (5, 672, 160, True, hard_swish, 2),  # 7x7
    (5, 960, 160, True, hard_swish, 1),
    (5, 960, 160, True, hard_swish, 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, relu, 2),  # 56x56
    (3, 72, 24, False, relu, 2),  # 28x28
    (3, 88, 24, False, relu, 1),
    (5, 96, 40, True, hard_swish, 2),  # 14x14
    (5, 240, 40, True, hard_swish, 1),
    (5, 240, 40, True, hard_swish, 1),
    (5, 120, 48, True, hard_swish, 1),
    (5, 144, 48, True, hard_swish, 1),
    (5, 288, 96, True, hard_swish, 2),  # 7x7
    (5, 576, 96, True, hard_swish, 1),
    (5, 576, 96, True, hard_swish, 1),
)


class Bottleneck(nn.Module):
    """Inverted residual: 1x1 to widen, depthwise, squeeze-excite, linear 1x1, and a shortcut."""

    kernel_size: int
    hidden: int
    features: int
    squeeze: bool
    activation: Callable[[Array], Array]
    strides: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        conv_norm_act = partial(ConvNormAct, activation=self.activation, conv=self.conv, norm=self.norm)
        inputs, hidden = x.shape[-1], self.hidden
        expand = [partial(conv_norm_act, hidden, 1)] if hidden != inputs else []
        gate = partial(SqueezeExcite, make_divisible(hidden // 4), conv=self.conv, gate=hard_sigmoid)
        y = Sequential(
            [
                *expand,
                partial(conv_norm_act, hidden, self.kernel_size, strides=self.strides, groups=hidden),
                *([gate] if self.squeeze else []),
                partial(conv_norm_act, self.features, 1, activation=None),
            ],
            name="block",
        )(x)
        return x + y if self.strides == 1 and inputs == self.features else y


class MobileNetV3(Classifier, kw_only=True):
    """MobileNetV3. `num_classes=0` returns what global pooling gives, before the classifier's hidden layer.

    Attributes:
        rows: `LARGE` or `SMALL`.
        hidden: outputs of the classifier's first layer.
        dropout: rate before the classifier's last layer.
        epsilon: BatchNorm's.
        momentum: BatchNorm's, PyTorch's sense. By the published one, running statistics take a thousand steps to forget
            their initial values: a short training evaluates right with 0.1.
    """

    rows: Sequence[Row]
    hidden: int
    dropout: float = 0.2
    epsilon: float = 1e-3
    momentum: float = 0.01

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
        conv_norm_act = partial(ConvNormAct, activation=hard_swish, conv=conv, norm=norm)

        stem = partial(conv_norm_act, 16, 3, strides=2)
        blocks = [partial(Bottleneck, *row, conv=conv, norm=norm) for row in self.rows]
        _, _, last, *_ = self.rows[-1]
        head = partial(conv_norm_act, 6 * last, 1)
        x = Sequential([stem, *blocks, head], name="features")(images)  # (n, h/32, w/32, 6 * last)
        x = global_avg_pool(x)
        if self.num_classes == 0:
            return x
        linear = partial(Linear, kernel_init=normal(0.01), bias_init=zeros, **dtypes)
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        layers = [partial(linear, self.hidden), hard_swish, dropout, partial(linear, self.num_classes)]
        return Sequential(layers, name="classifier")(x)


register("mobilenet_v3_large", MobileNetV3, rows=LARGE, hidden=1280)
register("mobilenet_v3_small", MobileNetV3, rows=SMALL, hidden=1024)
