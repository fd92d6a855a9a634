"""Weights in and out."""

from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.files import load_weights, read_weights, save_weights
from flaxcnn.weights.torch import abstract_variables, from_torch, to_torch

__all__ = [
    "WeightsError",
    "abstract_variables",
    "from_torch",
    "load_weights",
    "read_weights",
    "save_weights",
    "to_torch",
]
