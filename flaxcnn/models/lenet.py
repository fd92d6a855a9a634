"""LeNet, as taught on CIFAR-10.

    layer   conv1   pool   conv2   pool   fc1   fc2   fc3
    kernel  5x5     2x2    5x5     2x2
    output  28x28   14x14  10x10   5x5
    size    16      16     32      32     120   84    classes

The layout is LeNet-5's (LeCun et al., Gradient-based learning applied to document recognition, 1998);
ReLU, max pooling and the three input channels are the teaching variant's.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jax import Array

from flaxcnn.layers import Conv, Linear, flatten, max_pool
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register


class LeNet(Classifier, kw_only=True):
    """LeNet. The parameters of `fc1` fix the image size: 32x32 unless trained at another one."""

    image_size: int = 32
    min_image_size: int = 16

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes). Computes alike in training and evaluation."""
        self.check(images)
        conv = partial(Conv, dtype=self.dtype, param_dtype=self.param_dtype)
        linear = partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)

        x = nn.relu(conv(16, 5, name="conv1")(images))  # (n, 28, 28, 16)
        x = max_pool(x, 2)  # (n, 14, 14, 16)
        x = nn.relu(conv(32, 5, name="conv2")(x))  # (n, 10, 10, 32)
        x = flatten(max_pool(x, 2))  # (n, 32 * 5 * 5)
        x = nn.relu(linear(120, name="fc1")(x))
        x = nn.relu(linear(84, name="fc2")(x))
        if self.num_classes == 0:
            return x
        return linear(self.num_classes, name="fc3")(x)


register("lenet", LeNet)
