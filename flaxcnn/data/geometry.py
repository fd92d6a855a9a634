"""Sizes, crops and flips on Pillow, equal bit for bit to torchvision's on Pillow images.

Random transforms are two functions: one draws the parameters, the other applies them. The draws cannot match
torchvision's, which come from torch's generator; the applications do.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageOps

Interpolation = Literal["nearest", "bilinear", "bicubic"]


def check_interpolation(interpolation: str) -> None:
    """Raises ValueError unless it is the name of a filter."""
    if interpolation not in get_args(Interpolation):
        names = ", ".join(get_args(Interpolation))
        raise ValueError(f"interpolation: expected one of {names}, got {interpolation!r}")


def resampling(interpolation: Interpolation) -> Image.Resampling:
    """Pillow's name of a filter."""
    return Image.Resampling[interpolation.upper()]


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
    return image.resize((width, height), resampling(interpolation))


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


def random_erasing_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Box | None:
    """Draws the box that random erasing sets to zero.

    Args:
        rng: where the randomness comes from.
        width: of the image, in pixels.
        height: of the image, in pixels.
        scale: least and greatest area, as shares of the image's.
        ratio: least and greatest height / width.

    Returns:
        The first of ten tries that is smaller than the image, or None.

    Source: Zhong et al., Random Erasing, 2017 (arXiv 1708.04896); torchvision's RandomErasing.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box_height < height and box_width < width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    return None


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


def vertical_flip(image: Image.Image) -> Image.Image:
    """Mirrors an image top to bottom."""
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def ten_crops(image: Image.Image, size: int) -> list[Image.Image]:
    """The four corners and the centre of an image, then those of its mirror image.

    Args:
        image: of `size` pixels or more a side.
        size: pixels a side of a crop.

    Returns:
        Top left, top right, bottom left, bottom right, centre; and the same of the image mirrored left to right.

    Raises:
        ValueError: the image is smaller.
    """
    right, bottom = image.width - size, image.height - size
    if right < 0 or bottom < 0:
        raise ValueError(f"size: expected at most {min(image.size)} for an image of {image.width}x{image.height}")
    crops = []
    for view in (image, horizontal_flip(image)):
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        crops += [view.crop((left, top, left + size, top + size)) for left, top in corners]
        crops.append(center_crop(view, size))
    return crops
