"""Weights in and out, and those that are published."""

from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.files import WeightsFile, load_weights, read_weights, save_weights
from flaxcnn.weights.torch import abstract_variables, from_torch, to_torch
from flaxcnn.weights.zoo import CHECKPOINTS, Checkpoint, checkpoint, imagenet_classes, load_pretrained, preprocessing

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "WeightsError",
    "WeightsFile",
    "abstract_variables",
    "checkpoint",
    "from_torch",
    "imagenet_classes",
    "load_pretrained",
    "load_weights",
    "preprocessing",
    "read_weights",
    "save_weights",
    "to_torch",
]
