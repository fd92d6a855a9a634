"""Weights in and out."""

from flaxcnn.weights.torch import WeightsError, abstract_variables, from_torch, to_torch

__all__ = ["WeightsError", "abstract_variables", "from_torch", "to_torch"]
