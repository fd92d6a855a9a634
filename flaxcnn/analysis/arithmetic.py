"""The sums of a first course on convolutional networks, as functions."""

from __future__ import annotations

from collections.abc import Sequence

from flaxcnn.analysis.cost import Cost


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """How many pixels a convolution or a pool leaves along an axis.

    N = (W - F + 2 P) / S + 1, rounded down.

    Args:
        size: W, of the input.
        kernel: F, of the window.
        stride: S, from window to window.
        padding: P, on either side.

    Returns:
        N.

    Raises:
        ValueError: when the window is larger than the padded input.
    """
    if kernel > size + 2 * padding:
        raise ValueError(f"a window of {kernel} does not fit an input of {size} with {padding} on either side")
    return (size - kernel + 2 * padding) // stride + 1


def receptive_field(layers: Sequence[tuple[int, int]], field: int = 1) -> int:
    """How many pixels a unit behind a chain of layers sees along an axis.

    From the last layer to the first: F(i) = (F(i + 1) - 1) S + K.

    Args:
        layers: kernel K and stride S of each, the first one first.
        field: units of the last layer's output to begin with.

    Returns:
        Pixels.
    """
    for kernel, stride in reversed(layers):
        field = (field - 1) * stride + kernel
    return field


def conv_cost(inputs: int, features: int, kernel: int, size: int, *, groups: int = 1) -> Cost:
    """A convolution without bias.

    Args:
        inputs: channels of its input.
        features: channels of its output.
        kernel: of the square window.
        size: height and width of its output.
        groups: that the channels fall into.

    Returns:
        K K M N / G parameters, and as many multiply-adds for each of the output's pixels.
    """
    parameters = kernel * kernel * inputs * features // groups
    return Cost(parameters, parameters * size * size)


def separable_cost(inputs: int, features: int, kernel: int, size: int) -> Cost:
    """A depthwise separable convolution: every channel by itself, then a 1x1 convolution.

    Of a standard convolution's cost it is the part 1 / N + 1 / K^2.

    Args:
        inputs: channels of its input.
        features: channels of its output.
        kernel: of the depthwise part.
        size: height and width of its output, stride 1.

    Returns:
        Both parts together.

    Reference: Howard et al., MobileNets, arXiv 1704.04861.
    """
    return _sum(conv_cost(inputs, inputs, kernel, size, groups=inputs), conv_cost(inputs, features, 1, size))


def basic_block_cost(channels: int, size: int) -> Cost:
    """ResNet's plain block: two 3x3 convolutions.

    Args:
        channels: of input and output.
        size: height and width.

    Returns:
        Both convolutions together, without normalisation.

    Reference: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385.
    """
    conv = conv_cost(channels, channels, 3, size)
    return _sum(conv, conv)


def bottleneck_cost(channels: int, narrow: int, size: int) -> Cost:
    """ResNet's bottleneck: 1x1 to narrow, 3x3, 1x1 to widen again.

    Args:
        channels: of input and output.
        narrow: channels in between.
        size: height and width.

    Returns:
        The three convolutions together, without normalisation.

    Reference: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385.
    """
    return _sum(
        conv_cost(channels, narrow, 1, size), conv_cost(narrow, narrow, 3, size), conv_cost(narrow, channels, 1, size)
    )


def _sum(*parts: Cost) -> Cost:
    return Cost(sum(part.parameters for part in parts), sum(part.macs for part in parts))
