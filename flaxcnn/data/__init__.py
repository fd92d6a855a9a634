"""Images on their way to the model: sources, per-image transforms, and the loader.

The names below are imported on first use, so that `import flaxcnn.data` loads neither Pillow nor Grain.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flaxcnn.data.augment import POLICIES, AugMix, AutoAugment, ColorJitter, RandAugment, TrivialAugmentWide
    from flaxcnn.data.images import DataError, load_image, to_rgb
    from flaxcnn.data.loader import eval_batches, steps_per_epoch, train_batches
    from flaxcnn.data.sources import Source, digits, image_folder
    from flaxcnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, TestTimeViews, TrainTransform, View

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "POLICIES",
    "AugMix",
    "AutoAugment",
    "ColorJitter",
    "DataError",
    "Preprocessing",
    "RandAugment",
    "Source",
    "TestTimeViews",
    "TrainTransform",
    "TrivialAugmentWide",
    "View",
    "digits",
    "eval_batches",
    "image_folder",
    "load_image",
    "steps_per_epoch",
    "to_rgb",
    "train_batches",
]

_HOME = {
    "augment": ("POLICIES", "AugMix", "AutoAugment", "ColorJitter", "RandAugment", "TrivialAugmentWide"),
    "images": ("DataError", "load_image", "to_rgb"),
    "loader": ("eval_batches", "steps_per_epoch", "train_batches"),
    "sources": ("Source", "digits", "image_folder"),
    "transforms": ("IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing", "TestTimeViews", "TrainTransform", "View"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
