"""Images on their way to the model: sources, per-image transforms, and the loader.

The names below are imported on first use, so that `import flaxcnn.data` loads neither Pillow nor Grain.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flaxcnn.data.archives import cifar10_splits, cifar100_splits, fashion_mnist_splits, mnist_splits
    from flaxcnn.data.augment import POLICIES, AugMix, AutoAugment, RandAugment, TrivialAugmentWide
    from flaxcnn.data.cache import CachedSource
    from flaxcnn.data.check import check_data
    from flaxcnn.data.colour import ColorJitter
    from flaxcnn.data.embedded import digits, digits_splits, synthetic
    from flaxcnn.data.folder import folder_splits, image_folder, without_unreadable
    from flaxcnn.data.images import DataError, load_image, to_rgb
    from flaxcnn.data.loader import Shown, eval_batches, steps_per_epoch, train_batches, training_order, view_rng
    from flaxcnn.data.manifest import manifest_splits
    from flaxcnn.data.prepared import tfds_splits, write_arrayrecord
    from flaxcnn.data.source import ArraySource, FolderSource, Source
    from flaxcnn.data.splits import Splits, choose, slice_of
    from flaxcnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, TestTimeViews, TrainTransform, View

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "POLICIES",
    "ArraySource",
    "AugMix",
    "AutoAugment",
    "CachedSource",
    "ColorJitter",
    "DataError",
    "FolderSource",
    "Preprocessing",
    "RandAugment",
    "Shown",
    "Source",
    "Splits",
    "TestTimeViews",
    "TrainTransform",
    "TrivialAugmentWide",
    "View",
    "check_data",
    "choose",
    "cifar10_splits",
    "cifar100_splits",
    "digits",
    "digits_splits",
    "eval_batches",
    "fashion_mnist_splits",
    "folder_splits",
    "image_folder",
    "load_image",
    "manifest_splits",
    "mnist_splits",
    "slice_of",
    "steps_per_epoch",
    "synthetic",
    "tfds_splits",
    "to_rgb",
    "train_batches",
    "training_order",
    "view_rng",
    "without_unreadable",
    "write_arrayrecord",
]

_HOME = {
    "archives": ("cifar10_splits", "cifar100_splits", "fashion_mnist_splits", "mnist_splits"),
    "augment": ("POLICIES", "AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"),
    "colour": ("ColorJitter",),
    "cache": ("CachedSource",),
    "check": ("check_data",),
    "embedded": ("digits", "digits_splits", "synthetic"),
    "folder": ("folder_splits", "image_folder", "without_unreadable"),
    "images": ("DataError", "load_image", "to_rgb"),
    "loader": ("Shown", "eval_batches", "steps_per_epoch", "train_batches", "training_order", "view_rng"),
    "manifest": ("manifest_splits",),
    "prepared": ("tfds_splits", "write_arrayrecord"),
    "source": ("ArraySource", "FolderSource", "Source"),
    "splits": ("Splits", "choose", "slice_of"),
    "transforms": ("IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing", "TestTimeViews", "TrainTransform", "View"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
