"""AlexNet, as torchvision builds it: one column, without local response normalisation.

    layer    kernel     alexnet  alexnet_half  output
    conv1    11x11, /4  64       48            55
    pool     3x3, /2                           27
    conv2    5x5        192      128           27
    pool     3x3, /2                           13
    conv3    3x3        384      192           13
    conv4    3x3        256      192           13
    conv5    3x3        256      128           13
    pool     3x3, /2                           6
    fc1                 4096     2048
    fc2                 4096     2048
    fc3                 classes  classes

`alexnet_half`, the one that is taught, is as wide as one of the two columns of the first paper.

References: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, and
One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jax import Array

from flaxcnn.layers import Conv, Linear, Sequential, adaptive_avg_pool, flatten, max_pool
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import register


class AlexNet(Classifier, kw_only=True):
    """AlexNet. Without `adaptive_pool`, the parameters of the first Linear fix the image size.

    Attributes:
        widths: channels of the five convolutions.
        hidden: width of the two hidden fully connected layers.
        adaptive_pool: pool the last feature map to 6x6 pixels, whatever the image size.
        dropout: rate before each of the two hidden fully connected layers.
    """

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    adaptive_pool: bool = True
    dropout: float = 0.5
    min_image_size: int = 63

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        self.check(images)
        conv = partial(Conv, dtype=self.dtype, param_dtype=self.param_dtype)
        linear = partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        pool = partial(max_pool, window=3, strides=2)
        width1, width2, width3, width4, width5 = self.widths

        features = [
            *(partial(conv, width1, 11, strides=4, padding=2), nn.relu, pool),
            *(partial(conv, width2, 5, padding=2), nn.relu, pool),
            *(partial(conv, width3, 3, padding=1), nn.relu),
            *(partial(conv, width4, 3, padding=1), nn.relu),
            *(partial(conv, width5, 3, padding=1), nn.relu, pool),
        ]
        x = Sequential(features, name="features")(images)  # (n, 6, 6, width5)
        if self.adaptive_pool:
            x = adaptive_avg_pool(x, 6)
        x = flatten(x)  # (n, width5 * 6 * 6)
        classifier = [
            *(dropout, partial(linear, self.hidden), nn.relu),
            *(dropout, partial(linear, self.hidden), nn.relu),
        ]
        if self.num_classes > 0:
            classifier.append(partial(linear, self.num_classes))
        return Sequential(classifier, name="classifier")(x)


register("alexnet", AlexNet)
register("alexnet_half", AlexNet, widths=(48, 128, 192, 192, 128), hidden=2048, adaptive_pool=False)
