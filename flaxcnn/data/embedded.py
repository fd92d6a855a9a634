"""Data sets that need no files: scikit-learn's digits, and made-up images."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from flaxcnn.data.source import ArraySource
from flaxcnn.data.splits import VAL_FRACTION, Split, choose


def digits(split: Split, *, val_fraction: float = VAL_FRACTION, seed: int = 0) -> ArraySource:
    """scikit-learn's handwritten digits: 1,797 greyscale images of 8x8 pixels, ten classes.

    Args:
        split: "train" or "val".
        val_fraction: the share of each class held out for "val".
        seed: which share it is.

    Returns:
        The split, with the images scaled from 0..16 to 0..255.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).
    """
    return choose(digits_splits(), split, val_fraction=val_fraction, seed=seed)


def digits_splits() -> dict[str, Callable[[], ArraySource]]:
    """The digits, which have no split of their own."""
    return {"all": _digits}


def _digits() -> ArraySource:
    from sklearn.datasets import load_digits

    bunch = cast(dict, load_digits())
    images = np.rint(bunch["images"] * (255 / 16)).astype(np.uint8)  # (n, 8, 8)
    labels = bunch["target"].astype(np.int64)
    names = tuple(f"digits[{i}]" for i in range(len(labels)))
    class_names = tuple(str(name) for name in bunch["target_names"])
    return ArraySource(images, labels, class_names, names)


def synthetic(num_examples: int = 1024, *, num_classes: int = 10, image_size: int = 64, seed: int = 0) -> ArraySource:
    """Images that were made up, to measure with: each class is noise round a colour of its own.

    Args:
        num_examples: how many; the classes take turns.
        num_classes: how many.
        image_size: pixels a side.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(num_examples, dtype=np.int64) % num_classes
    colours = rng.integers(64, 192, (num_classes, 1, 1, 3))
    noise = rng.integers(-64, 64, (num_examples, image_size, image_size, 3), np.int8)
    images = (colours[labels] + noise).astype(np.uint8)  # (n, h, w, 3)
    class_names = tuple(f"class {i}" for i in range(num_classes))
    return ArraySource(images, labels, class_names, tuple(f"synthetic[{i}]" for i in range(num_examples)))
