"""Random changes of an image's colours, equal bit for bit to torchvision's on Pillow images, as `augment`'s are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue changed by random factors, in random order.

    Attributes:
        brightness: the factor is uniform in 1 - brightness ... 1 + brightness, at least 0.
        contrast: likewise.
        saturation: likewise.
        hue: the shift is uniform in -hue ... hue of the colour circle, at most 0.5.

    Source: torchvision's ColorJitter.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            most = 0.5 if name == "hue" else math.inf
            if not 0 <= getattr(self, name) <= most:
                wanted = "0 to 0.5" if name == "hue" else "0 or more"
                raise ValueError(f"{name}: expected {wanted}, got {getattr(self, name)}")

    def draw(self, rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
        """Draws what to change and by which factor, in the order to do it in."""
        order = rng.permutation(4)
        factors = [
            (name, float(rng.uniform(max(centre - span, least), centre + span)))
            for name, span, centre, least in (
                ("brightness", self.brightness, 1.0, 0.0),
                ("contrast", self.contrast, 1.0, 0.0),
                ("saturation", self.saturation, 1.0, 0.0),
                ("hue", self.hue, 0.0, -0.5),
            )
        ]
        return tuple(factors[i] for i in order if getattr(self, factors[i][0]))

    def apply(self, image: Image.Image, drawn: tuple[tuple[str, float], ...]) -> Image.Image:
        """Applies the changes in their order."""
        for name, factor in drawn:
            image = _ADJUSTMENTS[name](image, factor)
        return image


def _adjust_hue(image: Image.Image, shift: float) -> Image.Image:
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(shift * 255).astype(np.uint8)  # (h, w), round the circle
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert(image.mode)


_ADJUSTMENTS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": _adjust_hue,
}


def greyscale(image: Image.Image) -> Image.Image:
    """The image in shades of grey, in mode RGB."""
    return image.convert("L").convert("RGB")
