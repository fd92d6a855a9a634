"""The small composites that several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flaxcnn.layers.conv import Conv
from flaxcnn.layers.norm import BatchNorm

Layer = Callable[..., nn.Module]
"""A module's constructor that still wants a name: a class, or a `functools.partial` of one."""


class Sequential(nn.Module):
    """Layers one after the other, named "0", "1", ... as `torch.nn.Sequential` names them.

    Attributes:
        layers: module constructors (a class or a `functools.partial` of one), and plain functions of
            an array, which have no name but take up a number.
    """

    holds_blocks: ClassVar[bool] = True
    """Of a module that only holds others: gradient checkpointing keeps their inputs, not its own alone."""

    layers: Sequence[Callable[..., Any]]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply all layers to x."""
        for index, layer in enumerate(self.layers):
            apply = layer(name=str(index)) if _is_module(layer) else layer
            x = apply(x)
        return x


def _is_module(layer: Callable[..., Any]) -> bool:
    constructor = layer.func if isinstance(layer, partial) else layer
    return isinstance(constructor, type) and issubclass(constructor, nn.Module)


class ConvNormAct(nn.Module):
    """Convolution "0", normalisation "1", activation: torchvision's `Conv2dNormActivation`.

    Padded so that stride 1 keeps the size.

    Attributes:
        conv: the convolution to build it of, without bias.
        norm: the normalisation.
        activation: None for a linear block.
    """

    features: int
    kernel_size: int
    strides: int = 1
    groups: int = 1
    dilation: int = 1
    activation: Callable[[Array], Array] | None = nn.relu
    conv: Layer = Conv
    norm: Layer = BatchNorm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / strides, w / strides, features)."""
        x = self.conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2 * self.dilation,
            kernel_dilation=self.dilation,
            feature_group_count=self.groups,
            use_bias=False,
            name="0",
        )(x)
        x = self.norm(name="1")(x)
        return x if self.activation is None else self.activation(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channels gated by a two-layer network over their global means.

    torchvision's `SqueezeExcitation`: 1x1 convolutions `fc1` and `fc2`, with bias.

    Attributes:
        squeezed: channels between the two layers.
        conv: the convolution to build both layers of.
        activation: after the first layer.
        gate: after the second.

    Reference: Hu et al., Squeeze-and-Excitation Networks, arXiv 1709.01507.
    """

    squeezed: int
    conv: Layer = Conv
    activation: Callable[[Array], Array] = nn.relu
    gate: Callable[[Array], Array] = jax.nn.sigmoid

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Gate x (n, h, w, c)."""
        s = x.mean(axis=(1, 2), keepdims=True)  # (n, 1, 1, c)
        s = self.activation(self.conv(self.squeezed, 1, use_bias=True, name="fc1")(s))  # (n, 1, 1, squeezed)
        return x * self.gate(self.conv(x.shape[-1], 1, use_bias=True, name="fc2")(s))  # (n, h, w, c)


StochasticDepth = partial(nn.Dropout, broadcast_dims=(1, 2, 3))
"""Drops whole examples of a residual branch and scales up the kept ones: torchvision's "row" mode.

Draws from the rng stream "dropout". Reference: Huang et al., Deep Networks with Stochastic Depth,
arXiv 1603.09382.
"""


def channel_shuffle(x: Array, groups: int) -> Array:
    """Interleave the channels of `groups` groups: (g, c/g) becomes (c/g, g).

    Args:
        x: (n, h, w, c), groups dividing c.

    Returns:
        (n, h, w, c).

    Reference: Zhang et al., ShuffleNet, arXiv 1707.01083.
    """
    # As a transposition of (g, c/g), XLA's CPU backend would read x out of order.
    return jnp.stack(jnp.split(x, groups, axis=-1), axis=-1).reshape(x.shape)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round channels to a multiple of `divisor`, never below 90 % of `value` (the MobileNet papers' rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
