"""Layers with PyTorch's semantics: what the models are built of, usable by themselves."""

from flaxcnn.layers.blocks import (
    ConvNormAct,
    Layer,
    Sequential,
    SqueezeExcite,
    StochasticDepth,
    channel_shuffle,
    make_divisible,
)
from flaxcnn.layers.conv import Conv
from flaxcnn.layers.linear import Linear
from flaxcnn.layers.lowering import conv_lowering
from flaxcnn.layers.norm import BatchNorm
from flaxcnn.layers.pooling import adaptive_avg_pool, avg_pool, flatten, global_avg_pool, max_pool

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvNormAct",
    "Layer",
    "Linear",
    "Sequential",
    "SqueezeExcite",
    "StochasticDepth",
    "adaptive_avg_pool",
    "avg_pool",
    "channel_shuffle",
    "conv_lowering",
    "flatten",
    "global_avg_pool",
    "make_divisible",
    "max_pool",
]
