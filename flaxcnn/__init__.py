"""The classic convolutional image classifiers in Flax, numerically identical to PyTorch's."""

import importlib
from typing import Any

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

_ON_DEMAND = ("analysis", "build", "config", "data", "inference", "losses", "metrics", "schedules", "visual")


def __getattr__(name: str) -> Any:
    """Those of its modules, such as `flaxcnn.data`, that are imported when they are first asked for."""
    if name in _ON_DEMAND:
        return importlib.import_module(f"flaxcnn.{name}")
    raise AttributeError(f"module 'flaxcnn' has no attribute {name!r}")
