"""GoogLeNet, as torchvision builds it: with batch normalisation, and 3x3 for the paper's 5x5.

    layer         output  #1x1  #3x3 reduce  #3x3  #5x5 reduce  #5x5  pool proj
    conv 7x7, /2  112                        64
    pool 3x3, /2  56
    conv 3x3      56            64           192
    pool 3x3, /2  28
    inception 3a  28      64    96           128   16           32    32
    inception 3b  28      128   128          192   32           96    64
    pool 3x3, /2  14
    inception 4a  14      192   96           208   16           48    64     -> auxiliary head 1
    inception 4b  14      160   112          224   24           64    64
    inception 4c  14      128   128          256   24           64    64
    inception 4d  14      112   144          288   32           64    64     -> auxiliary head 2
    inception 4e  14      256   160          320   32           128   128
    pool 2x2, /2  7
    inception 5a  7       256   160          320   32           128   128
    inception 5b  7       384   192          384   48           128   128
    global average pool, dropout, fully connected

All pools round their output size up.

Reference: Szegedy et al., Going Deeper with Convolutions, arXiv 1409.4842.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from flaxcnn.layers import (
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Sequential,
    adaptive_avg_pool,
    flatten,
    global_avg_pool,
    max_pool,
)
from flaxcnn.layers.initializers import normal
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

Widths = tuple[int, int, int, int, int, int]

# The table's columns.
INCEPTIONS: dict[str, Widths] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What a model with auxiliary heads returns in training, in torchvision's order."""

    logits: Array
    aux_logits2: Array
    aux_logits1: Array


class BasicConv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    conv: Layer = Conv
    norm: Layer = BatchNorm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h', w', features)."""
        x = self.conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            use_bias=False,
            name="conv",
        )(x)
        return nn.relu(self.norm(name="bn")(x))


class Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1, 3x3; 1x1, "5x5"; max pool, 1x1.

    Attributes:
        widths: a row of the table.
        basic_conv: constructor of a convolution with its activation.
        kernel_size: of the third branch.
    """

    widths: Widths
    basic_conv: Layer
    kernel_size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h, w, sum of the branches' last widths)."""
        conv, k = self.basic_conv, self.kernel_size
        width1, reduced2, width2, reduced3, width3, width4 = self.widths
        branch2 = [partial(conv, reduced2, 1), partial(conv, width2, 3, padding=1)]
        branch3 = [partial(conv, reduced3, 1), partial(conv, width3, k, padding=k // 2)]
        branch4 = [partial(max_pool, window=3, strides=1, padding=1), partial(conv, width4, 1)]
        branches = [
            conv(width1, 1, name="branch1")(x),
            Sequential(branch2, name="branch2")(x),
            Sequential(branch3, name="branch3")(x),
            Sequential(branch4, name="branch4")(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """A classifier on an inner feature map, for training only."""

    num_classes: int
    dropout: float
    train: bool
    basic_conv: Layer
    linear: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Feature map (n, h, w, c) to logits (n, num_classes)."""
        x = adaptive_avg_pool(x, 4)  # (n, 4, 4, c)
        x = flatten(self.basic_conv(128, 1, name="conv")(x))  # (n, 128 * 4 * 4)
        x = nn.relu(self.linear(1024, name="fc1")(x))
        x = nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(x)
        return self.linear(self.num_classes, name="fc2")(x)


def inception_trunk(
    images: Array, *, basic_conv: Layer, kernel_size: int, pool4: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """All of the table up to the global pool. Called within a module, whose submodules it names.

    Args:
        images: (n, h, w, c).
        basic_conv: constructor of a convolution with its activation.
        kernel_size: of the third branches.
        pool4: the pool between inception 4e and 5a.

    Returns:
        The outputs of 5b (n, h/32, w/32, 1024), of 4a (n, h/16, w/16, 512) and of 4d (n, h/16, w/16, 528).
    """
    pool = partial(max_pool, window=3, strides=2, ceil_mode=True)

    def inception(x: Array, stage: str, blocks: str) -> list[Array]:
        outputs = []
        for block in blocks:
            widths = INCEPTIONS[stage + block]
            x = Inception(widths, basic_conv, kernel_size, name=f"inception{stage}{block}")(x)
            outputs.append(x)
        return outputs

    x = pool(basic_conv(64, 7, strides=2, padding=3, name="conv1")(images))  # (n, h/4, w/4, 64)
    x = basic_conv(64, 1, name="conv2")(x)
    x = pool(basic_conv(192, 3, padding=1, name="conv3")(x))  # (n, h/8, w/8, 192)
    *_, x = inception(x, "3", "ab")  # (n, h/8, w/8, 480)
    x4a, _, _, x4d, x = inception(pool(x), "4", "abcde")  # (n, h/16, w/16, 832)
    *_, x = inception(pool4(x), "5", "ab")  # (n, h/32, w/32, 1024)
    return x, x4a, x4d


class GoogLeNet(Classifier, kw_only=True):
    """GoogLeNet.

    Attributes:
        aux_heads: whether there are auxiliary heads; if so, their logits are returned too in training.
        transform_input: take images normalised with ImageNet's mean and standard deviation to the range
            (-1, 1), which the published weights expect.
        dropout: rate before the classifier; 0 also switches off the auxiliary heads' 0.7.
    """

    aux_heads: bool = True
    transform_input: bool = False
    dropout: float = 0.2
    min_image_size: int = 15

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array | GoogLeNetOutputs:
        """Images (n, h, w, c) to logits (n, num_classes); in training with `aux_heads`, to those of all heads."""
        self.check(images)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, kernel_init=normal(0.01), **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, epsilon=1e-3, **dtypes)
        linear = partial(Linear, kernel_init=normal(0.01), **dtypes)
        basic_conv = partial(BasicConv, conv=conv, norm=norm)

        if self.transform_input:
            images = to_minus_one_to_one(images)
        pool4 = partial(max_pool, window=2, ceil_mode=True)
        x, x4a, x4d = inception_trunk(images, basic_conv=basic_conv, kernel_size=3, pool4=pool4)
        x = global_avg_pool(x)  # (n, 1024)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        logits = linear(self.num_classes, name="fc")(x)
        # Initialisation makes the heads' parameters in evaluation too, so that variables do not depend on `train`.
        if not (self.aux_heads and (train or self.is_initializing())):
            return logits
        head = partial(
            AuxiliaryHead, self.num_classes, 0.7 if self.dropout else 0.0, train, basic_conv=basic_conv, linear=linear
        )
        aux_logits1, aux_logits2 = head(name="aux1")(x4a), head(name="aux2")(x4d)
        return GoogLeNetOutputs(logits, aux_logits2, aux_logits1) if train else logits


def to_minus_one_to_one(images: Array) -> Array:
    """Undo ImageNet's mean and standard deviation of RGB images (n, h, w, 3), and normalise with 0.5 and 0.5."""
    mean = jnp.asarray((0.485, 0.456, 0.406), images.dtype).reshape(1, 1, 1, 3)
    std = jnp.asarray((0.229, 0.224, 0.225), images.dtype).reshape(1, 1, 1, 3)
    return images * (std / 0.5) + (mean - 0.5) / 0.5


register("googlenet", GoogLeNet)
