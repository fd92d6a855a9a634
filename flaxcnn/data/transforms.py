"""Per-image transforms on Pillow and numpy, equal bit for bit to torchvision's on Pillow images.

Random transforms are two functions: one draws the parameters, the other applies them. The draws cannot match
torchvision's, which come from torch's generator; the applications do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageOps

from flaxcnn.data.images import to_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["nearest", "bilinear", "bicubic"]
TrainView = Literal["none", "pad_crop", "random_resized_crop"]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Box(NamedTuple):
    """A rectangle in an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(image: Image.Image, size: int | tuple[int, int], interpolation: Interpolation = "bilinear") -> Image.Image:
    """Resizes an image, with antialiasing.

    Args:
        image: of any size.
        size: pixels of the short side, the long side following (rounded down); or (height, width).
        interpolation: the filter.

    Returns:
        The resized image.
    """
    if isinstance(size, int):
        width, height = image.size
        long_side = int(size * max(width, height) / min(width, height))
        height, width = (long_side, size) if width <= height else (size, long_side)
    else:
        height, width = size
    return image.resize((width, height), _RESAMPLING[interpolation])


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cuts the central `size` x `size` pixels, padding with zeros where the image is smaller."""
    width, height = image.size
    missing_width, missing_height = max(size - width, 0), max(size - height, 0)
    if missing_width or missing_height:
        # The odd pixel of padding goes right and below; the odd pixel of a crop goes by round-half-even.
        left, top = missing_width // 2, missing_height // 2
        image = ImageOps.expand(image, (left, top, missing_width - left, missing_height - top))
        width, height = image.size
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image.crop((left, top, left + size, top + size))


def crop_resize(image: Image.Image, box: Box, size: int, interpolation: Interpolation = "bilinear") -> Image.Image:
    """Cuts a box out of an image and resizes it to `size` x `size` pixels."""
    top, left, height, width = box
    return resize(image.crop((left, top, left + width, top + height)), (size, size), interpolation)


def random_resized_crop_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """Draws the box of a random resized crop: area uniform, aspect ratio log-uniform.

    Args:
        rng: where the randomness comes from.
        width: of the image, in pixels.
        height: of the image, in pixels.
        scale: least and greatest area, as shares of the image's.
        ratio: least and greatest width / height.

    Returns:
        The first of ten tries that fits into the image, else its largest central box within `ratio`.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015; torchvision's RandomResizedCrop.
    """
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_width, box_height = width, height
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_crop_offset(rng: np.random.Generator, padding: int) -> tuple[int, int]:
    """Draws (top, left) for `pad_crop`, each uniform in 0 ... 2 * padding."""
    return int(rng.integers(2 * padding + 1)), int(rng.integers(2 * padding + 1))


def pad_crop(image: Image.Image, padding: int, offset: tuple[int, int]) -> Image.Image:
    """Pads an image with `padding` zeros all round and cuts its own size out at (top, left)."""
    top, left = offset
    width, height = image.size
    return ImageOps.expand(image, padding).crop((left, top, left + width, top + height))


def horizontal_flip(image: Image.Image) -> Image.Image:
    """Mirrors an image left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def to_float(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Scales an RGB image to 0..1 and normalises its channels.

    Args:
        image: mode RGB.
        mean: subtracted, a number a channel, on the scale 0..1.
        std: divided by, likewise.

    Returns:
        float32 (h, w, c).
    """
    width, height = image.size
    # Whole rows at a time: numpy is four times slower where the last axis is only 3 long.
    rows = np.asarray(image, np.float32).reshape(height, -1)  # (h, w * c), a fresh copy
    rows /= 255
    rows -= np.tile(np.asarray(mean, np.float32), width)
    rows /= np.tile(np.asarray(std, np.float32), width)
    return rows.reshape(height, width, -1)


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does to an image: resize the short side, crop the centre, normalise.

    Called with an image of any size and mode, it returns float32 (size, size, 3).

    Attributes:
        size: pixels a side of the result.
        resize: pixels of the short side before the crop; None resizes straight to size x size.
        interpolation: the filter of the resize.
        mean: a number a channel, on the scale 0..1.
        std: likewise.
        channels: 3, or 1 for grey, normalised with the average mean and std.
    """

    size: int
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: Literal[3, 1] = 3

    def __post_init__(self) -> None:
        _check_positive("size", self.size)
        if self.resize is not None:
            _check_positive("resize", self.resize)
        _check_choice("interpolation", self.interpolation, Interpolation)

    def __call__(self, image: Image.Image) -> np.ndarray:
        image = _evaluation_view(to_rgb(image), self.size, self.resize, self.interpolation)
        return _normalised(image, self.mean, self.std, self.channels)


@dataclass(frozen=True)
class TrainTransform:
    """What training does to an image: a random view of it, normalised.

    Called with an image of any size and mode and a generator, it returns float32 (size, size, 3).

    Attributes:
        size: pixels a side of the result.
        kind: "random_resized_crop" (ImageNet's); "pad_crop", which pads the evaluation's view and crops it
            (CIFAR's); or "none", the evaluation's view.
        resize: of the evaluation's view, as in `Preprocessing`.
        flip: whether to mirror every other image.
        padding: pixels all round, for "pad_crop".
        scale: least and greatest area of the crop as shares of the image's, for "random_resized_crop".
        ratio: least and greatest width / height of that crop.
        interpolation: the filter of the resize.
        mean: a number a channel, on the scale 0..1.
        std: likewise.
        channels: 3, or 1 for grey, as in `Preprocessing`.
    """

    size: int
    kind: TrainView = "random_resized_crop"
    resize: int | None = None
    flip: bool = True
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: Literal[3, 1] = 3

    def __post_init__(self) -> None:
        _check_positive("size", self.size)
        if self.resize is not None:
            _check_positive("resize", self.resize)
        _check_choice("kind", self.kind, TrainView)
        _check_choice("interpolation", self.interpolation, Interpolation)
        if self.padding < 0:
            raise ValueError(f"padding: expected 0 or more pixels, got {self.padding}")
        for field, (least, greatest) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < least <= greatest:
                raise ValueError(f"{field}: expected 0 < least <= greatest, got {(least, greatest)}")

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        image = to_rgb(image)
        if self.kind == "random_resized_crop":
            box = random_resized_crop_box(rng, *image.size, self.scale, self.ratio)
            image = crop_resize(image, box, self.size, self.interpolation)
        else:
            image = _evaluation_view(image, self.size, self.resize, self.interpolation)
        if self.kind == "pad_crop":
            image = pad_crop(image, self.padding, random_crop_offset(rng, self.padding))
        if self.flip and rng.random() < 0.5:
            image = horizontal_flip(image)
        return _normalised(image, self.mean, self.std, self.channels)


def _normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float], channels: int) -> np.ndarray:
    if channels == 3:
        return to_float(image, mean, std)
    return to_float(image.convert("L"), (fmean(mean),), (fmean(std),))


def _evaluation_view(
    image: Image.Image, size: int, short_side: int | None, interpolation: Interpolation
) -> Image.Image:
    if short_side is None:
        return resize(image, (size, size), interpolation)
    return center_crop(resize(image, short_side, interpolation), size)


def _check_positive(field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{field}: expected 1 or more pixels, got {value}")


def _check_choice(field: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{field}: expected one of {', '.join(get_args(choices))}, got {value!r}")
