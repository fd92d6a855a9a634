"""Weights in and out, and those that are published."""

from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.files import WeightsFile, load_weights, read_weights, save_weights
from flaxcnn.weights.torch import from_torch, to_torch
from flaxcnn.weights.transfer import Start, fitted, start_from
from flaxcnn.weights.zoo import (
    CHECKPOINTS,
    Checkpoint,
    checkpoint,
    imagenet_classes,
    load_pretrained,
    preprocessing,
    published_file,
)

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Start",
    "WeightsError",
    "WeightsFile",
    "checkpoint",
    "fitted",
    "from_torch",
    "imagenet_classes",
    "load_pretrained",
    "load_weights",
    "preprocessing",
    "published_file",
    "read_weights",
    "save_weights",
    "start_from",
    "to_torch",
]
