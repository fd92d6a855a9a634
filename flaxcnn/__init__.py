"""The classic convolutional image classifiers in Flax, numerically identical to PyTorch's."""

from flaxcnn import layers, models, optim, train
from flaxcnn.models import create_model, fuse, list_models
from flaxcnn.weights import (
    WeightsError,
    from_torch,
    imagenet_classes,
    load_pretrained,
    load_weights,
    preprocessing,
    save_weights,
    to_torch,
)

__version__ = "0.1.0"

__all__ = [
    "WeightsError",
    "create_model",
    "from_torch",
    "fuse",
    "imagenet_classes",
    "layers",
    "list_models",
    "load_pretrained",
    "load_weights",
    "models",
    "optim",
    "preprocessing",
    "save_weights",
    "to_torch",
    "train",
]
