"""VGG, as torchvision builds it.

    output   11 (A)   13 (B)   16 (D)   19 (E)
    224      64       64 x 2   64 x 2   64 x 2
    112      128      128 x 2  128 x 2  128 x 2
    56       256 x 2  256 x 2  256 x 3  256 x 4
    28       512 x 2  512 x 2  512 x 3  512 x 4
    14       512 x 2  512 x 2  512 x 3  512 x 4
    1        4096, 4096, classes: fully connected

Every convolution is 3x3, every row ends in a 2x2 max pool. `_bn` has a batch normalisation after each
convolution, which keeps its bias all the same.

Reference: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv 1409.1556.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jax import Array

from flaxcnn.layers import BatchNorm, Conv, Linear, Sequential, adaptive_avg_pool, flatten, max_pool
from flaxcnn.layers.initializers import kaiming_fan_out, normal, zeros
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register

WIDTHS = (64, 128, 256, 512, 512)


class VGG(Classifier, kw_only=True):
    """VGG.

    Attributes:
        depths: convolutions in each of the five stages.
        batch_norm: whether a BatchNorm follows each convolution.
        dropout: rate after each of the two hidden fully connected layers.
    """

    depths: tuple[int, int, int, int, int]
    batch_norm: bool = False
    dropout: float = 0.5
    min_image_size: int = 32

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, kernel_size=3, padding=1, kernel_init=kaiming_fan_out, bias_init=zeros, **dtypes)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **dtypes)
        linear = partial(Linear, kernel_init=normal(0.01), bias_init=zeros, **dtypes)
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)

        features = []
        for width, depth in zip(WIDTHS, self.depths, strict=True):
            layer = [partial(conv, width), *([norm] if self.batch_norm else []), nn.relu]
            features += [*(layer * depth), partial(max_pool, window=2)]
        x = Sequential(features, name="features")(images)  # (n, h/32, w/32, 512)
        x = flatten(adaptive_avg_pool(x, 7))  # (n, 512 * 7 * 7)
        hidden = [partial(linear, 4096), nn.relu, dropout, partial(linear, 4096), nn.relu]
        head = [dropout, partial(linear, self.num_classes)] if self.num_classes > 0 else []
        return Sequential([*hidden, *head], name="classifier")(x)


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
for _layers, _depths in _DEPTHS.items():
    register(f"vgg{_layers}", VGG, depths=_depths)
    register(f"vgg{_layers}_bn", VGG, depths=_depths, batch_norm=True)
