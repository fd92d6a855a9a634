"""Per-image transforms, from a Pillow image of any kind to normalised floats: for evaluation and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from flaxcnn.data.augment import Augmentation
from flaxcnn.data.colour import ColorJitter, greyscale
from flaxcnn.data.geometry import (
    Box,
    Interpolation,
    center_crop,
    check_interpolation,
    crop_resize,
    horizontal_flip,
    pad_crop,
    random_crop_offset,
    random_erasing_box,
    random_resized_crop_box,
    resize,
    ten_crops,
    vertical_flip,
)
from flaxcnn.data.images import to_rgb

if TYPE_CHECKING:
    from flaxcnn.data.opencv import JpegFile

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TrainView = Literal["none", "pad_crop", "random_resized_crop"]
Views = Literal["one", "flip", "ten_crop"]


def to_float(image: Image.Image | np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Scales an image to 0..1 and normalises its channels.

    Args:
        image: mode RGB, or its pixels, uint8 (h, w, c).
        mean: subtracted, a number a channel, on the scale 0..1.
        std: divided by, likewise.

    Returns:
        float32 (h, w, c).
    """
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    # Whole rows at a time: numpy is four times slower where the last axis is only 3 long.
    rows = pixels.astype(np.float32).reshape(height, -1)  # (h, w * c)
    rows /= 255
    rows -= np.tile(np.asarray(mean, np.float32), width)
    rows /= np.tile(np.asarray(std, np.float32), width)
    return rows.reshape(height, width, -1)


def to_pixels(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Back from what `to_float` and `Preprocessing` make to what can be looked at.

    Args:
        images: (..., c) of normalised floats; c is 3, or 1 for grey.
        mean: a number a channel, on the scale 0..1.
        std: likewise.

    Returns:
        (..., c) in [0, 1].
    """
    shift, scale = (np.asarray(values, np.float32) for values in (mean, std))
    if images.shape[-1] == 1:
        shift, scale = shift.mean(), scale.mean()
    return np.clip(images * scale + shift, 0, 1)


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 (h, w, channels), of an image in mode RGB."""
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[:, :, None]


def _normalised(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    if pixels.shape[-1] == 1:
        mean, std = (fmean(mean),), (fmean(std),)
    return to_float(pixels, mean, std)


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does to an image: resize the short side, crop the centre, normalise.

    Called with an image of any size and mode, it returns float32 (size, size, channels).

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
        check_interpolation(self.interpolation)

    def __call__(self, image: Image.Image | JpegFile) -> np.ndarray:
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image | JpegFile) -> np.ndarray:
        """The view of an image before it is normalised: uint8 (size, size, channels)."""
        return _pixels(_evaluation_view(_whole(image), self.size, self.resize, self.interpolation), self.channels)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Makes float32 (h, w, channels) of uint8."""
        return _normalised(pixels, self.mean, self.std)


class View(NamedTuple):
    """What `TrainTransform` draws for one image: all there is to know of how it will look."""

    box: Box | None = None  # of the random resized crop
    offset: tuple[int, int] | None = None  # (top, left) of the padded crop
    flip: bool = False
    flip_vertically: bool = False
    jitter: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    augmentation: Any = None  # what the policy draws
    erased: Box | None = None


@dataclass(frozen=True)
class TrainTransform:
    """What training does to an image: a random view of it, normalised.

    Called with an image of any size and mode and a generator, it returns float32 (size, size, channels). It is `draw`,
    then `apply`, in the order of torchvision's reference training: crop and resize, flip, colours, policy, normalise,
    erase.

    Attributes:
        size: pixels a side of the result.
        kind: "random_resized_crop" (ImageNet's); "pad_crop", which pads the evaluation's view and crops it
            (CIFAR's); or "none", the evaluation's view.
        resize: of the evaluation's view, as in `Preprocessing`.
        flip: whether to mirror every other image left to right.
        flip_vertically: whether to mirror every other image top to bottom.
        padding: pixels all round, for "pad_crop".
        scale: least and greatest area of the crop as shares of the image's, for "random_resized_crop".
        ratio: least and greatest width / height of that crop.
        interpolation: the filter of the resize.
        jitter: of the colours.
        greyscale: the probability of losing the colours.
        augmentation: an automatic policy.
        erase: the probability of a box of zeros in the normalised image.
        mean: a number a channel, on the scale 0..1.
        std: likewise.
        channels: 3, or 1 for grey, as in `Preprocessing`.
    """

    size: int
    kind: TrainView = "random_resized_crop"
    resize: int | None = None
    flip: bool = True
    flip_vertically: bool = False
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    jitter: ColorJitter | None = None
    greyscale: float = 0.0
    augmentation: Augmentation | None = None
    erase: float = 0.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: Literal[3, 1] = 3

    def __post_init__(self) -> None:
        _check_positive("size", self.size)
        if self.resize is not None:
            _check_positive("resize", self.resize)
        _check_choice("kind", self.kind, TrainView)
        check_interpolation(self.interpolation)
        if self.padding < 0:
            raise ValueError(f"padding: expected 0 or more pixels, got {self.padding}")
        for field, (least, greatest) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < least <= greatest:
                raise ValueError(f"{field}: expected 0 < least <= greatest, got {(least, greatest)}")
        for field, probability in (("greyscale", self.greyscale), ("erase", self.erase)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{field}: expected a probability, got {probability}")

    def __call__(self, image: Image.Image | JpegFile, rng: np.random.Generator) -> np.ndarray:
        return self.apply(image, self.draw(rng, *image.size))

    def pixels(self, image: Image.Image | JpegFile, rng: np.random.Generator) -> np.ndarray:
        """A random view of an image before it is normalised and erased: uint8 (size, size, channels)."""
        return _pixels(self.apply_to_image(image, self.draw(rng, *image.size)), self.channels)

    def draw(self, rng: np.random.Generator, width: int, height: int) -> View:
        """Draws how an image is to be seen.

        Args:
            rng: where the randomness comes from; `flaxcnn.data.view_rng` is the loader's for an example of an epoch.
            width: of the image, in pixels.
            height: of the image, in pixels.

        Returns:
            The parameters, which pickle and print.
        """
        box = offset = None
        if self.kind == "random_resized_crop":
            box = random_resized_crop_box(rng, width, height, self.scale, self.ratio)
        elif self.kind == "pad_crop":
            offset = random_crop_offset(rng, self.padding)
        return View(
            box,
            offset,
            flip=self.flip and bool(rng.random() < 0.5),
            flip_vertically=self.flip_vertically and bool(rng.random() < 0.5),
            jitter=self.jitter.draw(rng) if self.jitter else (),
            grey=self.greyscale > 0 and bool(rng.random() < self.greyscale),
            augmentation=self.augmentation.draw(rng, self.size, self.size) if self.augmentation else None,
            erased=random_erasing_box(rng, self.size, self.size)
            if self.erase > 0 and rng.random() < self.erase
            else None,
        )

    def apply(self, image: Image.Image | JpegFile, view: View) -> np.ndarray:
        """Makes the view of an image: float32 (size, size, channels)."""
        pixels = _normalised(_pixels(self.apply_to_image(image, view), self.channels), self.mean, self.std)
        if view.erased is not None:
            top, left, height, width = view.erased
            pixels[top : top + height, left : left + width] = 0
        return pixels

    def apply_to_image(self, image: Image.Image | JpegFile, view: View) -> Image.Image:
        """Makes the view of an image as far as it is an image: before it is normalised and erased."""
        if view.box is None:
            image = _evaluation_view(_whole(image), self.size, self.resize, self.interpolation)
        elif isinstance(image, Image.Image):
            image = crop_resize(to_rgb(image), view.box, self.size, self.interpolation)
        else:
            image = image.crop_resize(view.box, self.size, self.interpolation)
        if view.offset is not None:
            image = pad_crop(image, self.padding, view.offset)
        if view.flip:
            image = horizontal_flip(image)
        if view.flip_vertically:
            image = vertical_flip(image)
        if self.jitter is not None:
            image = self.jitter.apply(image, view.jitter)
        if view.grey:
            image = greyscale(image)
        return image if self.augmentation is None else self.augmentation.apply(image, view.augmentation)


@dataclass(frozen=True)
class TestTimeViews:
    """Several views of an image, whose answers are averaged in evaluation.

    Called with an image of any size and mode, it returns float32 (views, size, size, channels).

    Attributes:
        preprocessing: of the first view.
        views: "one"; "flip", that and its mirror image; or "ten_crop", the corners and the centre of the image after
            its resize, and of its mirror image.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    preprocessing: Preprocessing
    views: Views = "flip"

    def __post_init__(self) -> None:
        _check_choice("views", self.views, Views)
        if self.views == "ten_crop" and (self.preprocessing.resize or 0) <= self.preprocessing.size:
            raise ValueError(
                f"views: ten crops need a resize above the image size {self.preprocessing.size}, "
                f"not {self.preprocessing.resize}"
            )

    def __call__(self, image: Image.Image) -> np.ndarray:
        settings = self.preprocessing
        if self.views == "ten_crop":
            assert settings.resize is not None  # `__post_init__` saw to it
            image = _without_far_ends(to_rgb(image))
            views = ten_crops(resize(image, settings.resize, settings.interpolation), settings.size)
        else:
            view = _evaluation_view(to_rgb(image), settings.size, settings.resize, settings.interpolation)
            views = [view] if self.views == "one" else [view, horizontal_flip(view)]
        return np.stack([settings.normalise(_pixels(view, settings.channels)) for view in views])


def _whole(image: Image.Image | JpegFile) -> Image.Image:
    """All of an image, exact, as upright RGB."""
    return to_rgb(image) if isinstance(image, Image.Image) else image.load()


def _evaluation_view(
    image: Image.Image, size: int, short_side: int | None, interpolation: Interpolation
) -> Image.Image:
    if short_side is None:
        return resize(image, (size, size), interpolation)
    return center_crop(resize(_without_far_ends(image), short_side, interpolation), size)


_LONGEST = 256  # times as long as wide, a strip


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of a strip: resized to 256 pixels, all of one of 1x65500 pixels would take 64 GB."""
    width, height = image.size
    most = _LONGEST * min(width, height)
    left, top = (max(-(-(length - most) // 2), 0) for length in (width, height))  # as much from both ends: one middle
    return image.crop((left, top, width - left, height - top)) if left or top else image


def _check_positive(field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{field}: expected 1 or more pixels, got {value}")


def _check_choice(field: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{field}: expected one of {', '.join(get_args(choices))}, got {value!r}")
