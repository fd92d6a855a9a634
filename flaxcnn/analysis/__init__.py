"""What a network is made of, what it sees and what it costs."""

from flaxcnn.analysis.arithmetic import (
    basic_block_cost,
    bottleneck_cost,
    conv_cost,
    output_size,
    receptive_field,
    separable_cost,
)
from flaxcnn.analysis.cost import Cost, cost
from flaxcnn.analysis.latency import latency
from flaxcnn.analysis.summary import Layer, Summary, summarize, to_dict

__all__ = [
    "Cost",
    "Layer",
    "Summary",
    "basic_block_cost",
    "bottleneck_cost",
    "conv_cost",
    "cost",
    "latency",
    "output_size",
    "receptive_field",
    "separable_cost",
    "summarize",
    "to_dict",
]
