"""The automatic augmentation policies: random changes of an image's colours and shape.

Each is a frozen dataclass with two methods: `draw` makes the parameters from a generator, `apply` puts them to an
image. What `apply` does is torchvision's to the bit, given the same parameters, on Pillow images in mode RGB or L.
The draws have torchvision's distributions and not its numbers, which come from torch's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from flaxcnn.data.geometry import Interpolation, check_interpolation, resampling


class Augmentation(Protocol):
    """An automatic augmentation policy."""

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Any:
        """Draws the parameters for an image of that size."""
        ...

    def apply(self, image: Image.Image, drawn: Any) -> Image.Image:
        """Applies what was drawn."""
        ...


class Op(NamedTuple):
    """One operation of a policy, as it is to be applied."""

    name: str
    magnitude: float = 0.0


def apply_op(image: Image.Image, op: Op, interpolation: Interpolation = "nearest") -> Image.Image:
    """Applies an operation of a policy.

    Args:
        image: mode RGB or L.
        op: its name, one of `OPERATIONS`, and its magnitude: shears as slopes, translations in pixels, rotations in
            degrees, enhancements as what is added to the factor 1, posterise in bits kept, solarise as a share of 255.
        interpolation: of shears, translations and rotations; what comes into view is black.

    Returns:
        The changed image, of the same size.
    """
    return OPERATIONS[op.name](image, op.magnitude, interpolation)


def _affine(image: Image.Image, matrix: tuple[float, ...], interpolation: Interpolation) -> Image.Image:
    """Transforms by the matrix (a, b, c, d, e, f) from output pixels to input pixels."""
    black = (0,) * len(image.getbands())
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=resampling(interpolation), fillcolor=black
    )


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the high bits. With none AugMix means black, which Pillow's own function refuses."""
    return image.point([value & ~(2 ** (8 - bits) - 1) for value in range(256)] * len(image.getbands()))


def _angle(slope: float) -> float:
    """By way of degrees, as torchvision goes: the last bit of a slope decides where a filter's result is rounded."""
    return math.radians(math.degrees(math.atan(slope)))


def _rotate(image: Image.Image, degrees: float, interpolation: Interpolation) -> Image.Image:
    return image.rotate(degrees, resampling(interpolation), fillcolor=(0,) * len(image.getbands()))


_Operation = Callable[[Image.Image, float, Interpolation], Image.Image]
OPERATIONS: Mapping[str, _Operation] = {
    "Identity": lambda image, m, how: image,
    "ShearX": lambda image, m, how: _affine(image, (1, math.tan(_angle(m)), 0, 0, 1, 0), how),
    "ShearY": lambda image, m, how: _affine(image, (1, 0, 0, math.sin(_angle(m)) / math.cos(_angle(m)), 1, 0), how),
    "TranslateX": lambda image, m, how: _affine(image, (1, 0, -int(m), 0, 1, 0), how),
    "TranslateY": lambda image, m, how: _affine(image, (1, 0, 0, 0, 1, -int(m)), how),
    "Rotate": _rotate,
    "Brightness": lambda image, m, how: ImageEnhance.Brightness(image).enhance(1.0 + m),
    "Color": lambda image, m, how: ImageEnhance.Color(image).enhance(1.0 + m),
    "Contrast": lambda image, m, how: ImageEnhance.Contrast(image).enhance(1.0 + m),
    "Sharpness": lambda image, m, how: ImageEnhance.Sharpness(image).enhance(1.0 + m),
    "Posterize": lambda image, m, how: _posterize(image, int(m)),
    "Solarize": lambda image, m, how: ImageOps.solarize(image, 255.0 * m),  # pyright: ignore[reportArgumentType]
    "AutoContrast": lambda image, m, how: ImageOps.autocontrast(image),
    "Equalize": lambda image, m, how: ImageOps.equalize(image),
    "Invert": lambda image, m, how: ImageOps.invert(image),
}


class _Range(NamedTuple):
    """The magnitudes that an operation may have: equal steps from one end to the other."""

    first: float
    last: float
    signed: bool = False  # half the time the opposite
    whole: bool = False  # rounded, half to even

    def at(self, step: int, bins: int) -> float:
        """The magnitude at a step of 0 ... bins - 1, as torch.linspace has it: float32, the nearer end plus steps."""
        if self.whole:
            share = np.float32(step) / np.float32((bins - 1) / abs(self.last - self.first))
            return float(np.rint(np.float32(self.first) - share))
        first, last = np.float32(self.first), np.float32(self.last)
        width = float((last - first) / np.float32(bins - 1))
        # Its multiply-add rounds once, as float64 does here.
        exact = float(first) + step * width if step < bins // 2 else float(last) - (bins - 1 - step) * width
        return float(np.float32(exact))


def _space(
    *, shear: float, translate: tuple[float, float], rotate: float, enhance: float, bits: tuple[int, int]
) -> dict[str, _Range | None]:
    """The operations of a policy with their magnitudes, None for those without."""
    return {
        "Identity": None,
        "ShearX": _Range(0, shear, signed=True),
        "ShearY": _Range(0, shear, signed=True),
        "TranslateX": _Range(0, translate[0], signed=True),
        "TranslateY": _Range(0, translate[1], signed=True),
        "Rotate": _Range(0, rotate, signed=True),
        **{name: _Range(0, enhance, signed=True) for name in ("Brightness", "Color", "Contrast", "Sharpness")},
        "Posterize": _Range(*bits, whole=True),
        "Solarize": _Range(1, 0),
        "AutoContrast": None,
        "Equalize": None,
    }


def _random_op(rng: np.random.Generator, space: Mapping[str, _Range | None], step: Callable[[], int], bins: int) -> Op:
    name = tuple(space)[rng.integers(len(space))]
    return Op(name, _magnitude(rng, space[name], step, bins))


def _magnitude(rng: np.random.Generator, span: _Range | None, step: Callable[[], int], bins: int) -> float:
    if span is None:
        return 0.0
    magnitude = span.at(step(), bins)
    return -magnitude if span.signed and rng.random() <= 0.5 else magnitude


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A few operations, drawn evenly, all of the same strength.

    Attributes:
        num_ops: how many, one after the other.
        magnitude: their strength, 0 ... bins - 1.
        bins: steps that the strength is measured in.
        interpolation: of shears, translations and rotations.

    Source: Cubuk et al., RandAugment, 2019 (arXiv 1909.13719); torchvision's RandAugment.
    """

    num_ops: int = 2
    magnitude: int = 9
    bins: int = 31
    interpolation: Interpolation = "nearest"

    def __post_init__(self) -> None:
        _check_at_least("num_ops", self.num_ops, 0)
        _check_at_least("bins", self.bins, 2)
        _check_at_least("magnitude", self.magnitude, 0)
        if self.magnitude >= self.bins:
            raise ValueError(f"magnitude: expected 0 to {self.bins - 1}, got {self.magnitude}")
        check_interpolation(self.interpolation)

    def draw(self, rng: np.random.Generator, width: int, height: int) -> tuple[Op, ...]:
        """Draws the operations for an image of that size in pixels."""
        space = _gentle_space(width, height)
        return tuple(_random_op(rng, space, lambda: self.magnitude, self.bins) for _ in range(self.num_ops))

    def apply(self, image: Image.Image, drawn: tuple[Op, ...]) -> Image.Image:
        """Applies the operations in their order."""
        return _apply_all(image, drawn, self.interpolation)


@dataclass(frozen=True, kw_only=True)
class TrivialAugmentWide:
    """One operation, of any strength.

    Attributes:
        bins: steps that the strength is measured in.
        interpolation: of shears, translations and rotations.

    Source: Mueller and Hutter, TrivialAugment, 2021 (arXiv 2103.10158); torchvision's TrivialAugmentWide.
    """

    bins: int = 31
    interpolation: Interpolation = "nearest"

    def __post_init__(self) -> None:
        _check_at_least("bins", self.bins, 2)
        check_interpolation(self.interpolation)

    def draw(self, rng: np.random.Generator, width: int, height: int) -> tuple[Op, ...]:
        """Draws the operation; the image's size does not matter."""
        return (_random_op(rng, _WIDE_SPACE, lambda: int(rng.integers(self.bins)), self.bins),)

    def apply(self, image: Image.Image, drawn: tuple[Op, ...]) -> Image.Image:
        """Applies the operation."""
        return _apply_all(image, drawn, self.interpolation)


@dataclass(frozen=True, kw_only=True)
class AutoAugment:
    """One of 25 pairs of operations that were searched for on a data set, each applied with its own probability.

    Attributes:
        policy: the data set.
        interpolation: of shears, translations and rotations.

    Source: Cubuk et al., AutoAugment, 2018 (arXiv 1805.09501); torchvision's AutoAugment.
    """

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    interpolation: Interpolation = "nearest"

    def __post_init__(self) -> None:
        if self.policy not in AUTOAUGMENT_POLICIES:
            raise ValueError(f"policy: expected one of {', '.join(AUTOAUGMENT_POLICIES)}, got {self.policy!r}")
        check_interpolation(self.interpolation)

    def draw(self, rng: np.random.Generator, width: int, height: int) -> tuple[Op, ...]:
        """Draws which pair, and which of its two operations, for an image of that size in pixels."""
        pairs = AUTOAUGMENT_POLICIES[self.policy]
        space = _gentle_space(width, height) | {"Invert": None}
        ops = []
        for name, probability, step in pairs[rng.integers(len(pairs))]:
            if rng.random() <= probability:
                ops.append(Op(name, _magnitude(rng, space[name], lambda s=step: s or 0, 10)))
        return tuple(ops)

    def apply(self, image: Image.Image, drawn: tuple[Op, ...]) -> Image.Image:
        """Applies the operations in their order."""
        return _apply_all(image, drawn, self.interpolation)


class Mixture(NamedTuple):
    """What AugMix draws."""

    weight: float  # of the image itself
    weights: tuple[float, ...]  # of each chain; with `weight` they add to 1
    chains: tuple[tuple[Op, ...], ...]


@dataclass(frozen=True, kw_only=True)
class AugMix:
    """A weighted mean of the image and several chains of operations on it.

    torchvision applies the operations of this policy, and of no other, to tensors, whose shears and rotations round
    otherwise than Pillow's, by which all of them are done here; the mean is torchvision's to the bit.

    Attributes:
        severity: strength of the operations, 1 ... 10.
        chains: how many are mixed.
        depth: operations a chain; 0 draws 1 ... 3 for each.
        alpha: of the Dirichlet and Beta distributions of the weights.
        all_ops: whether to use those that the data sets of common corruptions contain: brightness, contrast,
            colour and sharpness.
        interpolation: of shears, translations and rotations.

    Source: Hendrycks et al., AugMix, 2020 (arXiv 1912.02781); torchvision's AugMix.
    """

    severity: int = 3
    chains: int = 3
    depth: int = 0
    alpha: float = 1.0
    all_ops: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        _check_at_least("severity", self.severity, 1)
        if self.severity > 10:
            raise ValueError(f"severity: expected 1 to 10, got {self.severity}")
        _check_at_least("chains", self.chains, 1)
        _check_at_least("depth", self.depth, 0)
        if self.alpha <= 0:
            raise ValueError(f"alpha: expected a number above 0, got {self.alpha}")
        check_interpolation(self.interpolation)

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Mixture:
        """Draws weights and chains for an image of that size in pixels."""
        space = _mixed_space(width, height, self.all_ops)
        weight, rest = rng.dirichlet([self.alpha] * 2)
        weights = rng.dirichlet([self.alpha] * self.chains) * rest
        chains = []
        for _ in range(self.chains):
            depth = self.depth or int(rng.integers(1, 4))
            chains.append(
                tuple(_random_op(rng, space, lambda: int(rng.integers(self.severity)), 10) for _ in range(depth))
            )
        return Mixture(float(weight), tuple(map(float, weights)), tuple(chains))

    def apply(self, image: Image.Image, drawn: Mixture) -> Image.Image:
        """Applies each chain to the image and mixes the results, in float32, the fraction dropped."""
        mix = np.float32(drawn.weight) * np.asarray(image, np.float32)
        for weight, chain in zip(drawn.weights, drawn.chains, strict=True):
            mix += np.float32(weight) * np.asarray(_apply_all(image, chain, self.interpolation), np.float32)
        return Image.fromarray(mix.astype(np.uint8))


def _apply_all(image: Image.Image, ops: tuple[Op, ...], interpolation: Interpolation) -> Image.Image:
    for op in ops:
        image = apply_op(image, op, interpolation)
    return image


POLICIES: Mapping[str, Callable[..., Augmentation]] = {
    "rand_augment": RandAugment,
    "trivial_augment": TrivialAugmentWide,
    "auto_augment": AutoAugment,
    "augmix": AugMix,
}


def _check_at_least(field: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{field}: expected a whole number, {least} or more, got {value}")


def _gentle_space(width: int, height: int) -> dict[str, _Range | None]:
    """RandAugment's, and with inversion AutoAugment's."""
    translate = (150.0 / 331.0 * width, 150.0 / 331.0 * height)
    return _space(shear=0.3, translate=translate, rotate=30.0, enhance=0.9, bits=(8, 4))


_WIDE_SPACE = _space(shear=0.99, translate=(32.0, 32.0), rotate=135.0, enhance=0.99, bits=(8, 2))


def _mixed_space(width: int, height: int, all_ops: bool) -> dict[str, _Range | None]:
    """AugMix's."""
    space = _space(shear=0.3, translate=(width / 3.0, height / 3.0), rotate=30.0, enhance=0.9, bits=(4, 0))
    enhancements = {name: space.pop(name) for name in ("Brightness", "Color", "Contrast", "Sharpness")}
    del space["Identity"]
    return space | enhancements if all_ops else space


_Step = tuple[str, float, int | None]  # operation, probability, strength 0 ... 9 or none
# The pairs of the paper's tables 7 to 9.
AUTOAUGMENT_POLICIES: Mapping[str, tuple[tuple[_Step, _Step], ...]] = {
    "imagenet": (
        (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
        (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
        (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
        (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
        (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
        (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
        (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
        (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
        (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
        (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
        (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
        (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
        (("Invert", 0.6, None), ("Equalize", 1.0, None)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
        (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
        (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
        (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
        (("Color", 0.4, 0), ("Equalize", 0.6, None)),
        (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
        (("Invert", 0.6, None), ("Equalize", 1.0, None)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    ),
    "cifar10": (
        (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
        (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
        (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
        (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
        (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
        (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
        (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
        (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
        (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
        (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
        (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
        (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
        (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
        (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
        (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
        (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
        (("Color", 0.9, 9), ("Equalize", 0.6, None)),
        (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
        (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
        (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
        (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
        (("Equalize", 0.8, None), ("Invert", 0.1, None)),
        (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
    ),
    "svhn": (
        (("ShearX", 0.9, 4), ("Invert", 0.2, None)),
        (("ShearY", 0.9, 8), ("Invert", 0.7, None)),
        (("Equalize", 0.6, None), ("Solarize", 0.6, 6)),
        (("Invert", 0.9, None), ("Equalize", 0.6, None)),
        (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
        (("ShearX", 0.9, 4), ("AutoContrast", 0.8, None)),
        (("ShearY", 0.9, 8), ("Invert", 0.4, None)),
        (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
        (("Invert", 0.9, None), ("AutoContrast", 0.8, None)),
        (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
        (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
        (("ShearY", 0.8, 8), ("Invert", 0.7, None)),
        (("Equalize", 0.9, None), ("TranslateY", 0.6, 6)),
        (("Invert", 0.9, None), ("Equalize", 0.6, None)),
        (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
        (("Invert", 0.8, None), ("TranslateY", 0.0, 2)),
        (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
        (("Invert", 0.6, None), ("Rotate", 0.8, 4)),
        (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
        (("ShearX", 0.1, 6), ("Invert", 0.6, None)),
        (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
        (("ShearY", 0.8, 4), ("Invert", 0.8, None)),
        (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
        (("ShearY", 0.8, 5), ("AutoContrast", 0.7, None)),
        (("ShearX", 0.7, 2), ("Invert", 0.1, None)),
    ),
}
