"""Bit-for-bit equality with torchvision's transforms of Pillow images."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, TrainTransform
from flaxcnn.data.augment import RandAugment
from flaxcnn.data.colour import ColorJitter
from flaxcnn.data.geometry import (
    Box,
    center_crop,
    crop_resize,
    horizontal_flip,
    pad_crop,
    random_crop_offset,
    random_resized_crop_box,
    resize,
    ten_crops,
    vertical_flip,
)
from flaxcnn.data.transforms import TestTimeViews, View, to_float
from tests.data.pictures import assert_same
from tests.data.replayed import Replayed

SIZES = [(1, 1), (1, 9), (9, 1), (2, 33), (31, 32), (32, 31), (40, 40), (37, 53), (101, 67), (64, 200)]
MODES = ["nearest", "bilinear", "bicubic"]


def random_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("width, height", SIZES)
def test_resize(v2, width: int, height: int, mode: str) -> None:
    image = random_image(width, height, mode)
    for interpolation in MODES:
        filtered = v2.InterpolationMode(interpolation)
        for size in (1, 7, 32, 45):
            assert_same(resize(image, size, interpolation), v2.functional.resize(image, [size], filtered))
        exact = v2.functional.resize(image, [19, 31], filtered)
        assert_same(resize(image, (19, 31), interpolation), exact)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("width, height", SIZES)
def test_center_crop(v2, width: int, height: int, mode: str) -> None:
    image = random_image(width, height, mode)
    for size in (1, 2, 8, 31, 32, 41, 64):
        assert_same(center_crop(image, size), v2.functional.center_crop(image, [size]))


@pytest.mark.parametrize("width, height", SIZES)
def test_crop_resize_and_flip(v2, width: int, height: int) -> None:
    image = random_image(width, height)
    box = Box(height // 3, width // 4, (height + 1) // 2, (width + 1) // 2)
    for interpolation in MODES:
        filtered = v2.InterpolationMode(interpolation)
        expected = v2.functional.resized_crop(image, *box, [24, 24], filtered)
        assert_same(crop_resize(image, box, 24, interpolation), expected)
    assert_same(horizontal_flip(image), v2.functional.hflip(image))
    assert_same(vertical_flip(image), v2.functional.vflip(image))


@pytest.mark.parametrize("offset", [(0, 0), (3, 1), (8, 8)])
def test_pad_crop(v2, offset: tuple[int, int]) -> None:
    image = random_image(20, 12)
    padded = v2.functional.pad(image, [4])
    assert_same(pad_crop(image, 4, offset), v2.functional.crop(padded, *offset, 12, 20))


@pytest.mark.parametrize("width, height", SIZES)
def test_to_float(width: int, height: int) -> None:
    """Against ToTensor, which divides by 255; v2's to_dtype multiplies by 1 / 255, which rounds otherwise."""
    functional = pytest.importorskip("torchvision.transforms.functional", reason="the reference")
    image = random_image(width, height)
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.0, 0.25, 0.5), (1.0, 0.5, 127 / 255))):
        tensor = functional.normalize(functional.to_tensor(image), list(mean), list(std))
        expected = tensor.permute(1, 2, 0).numpy()
        pixels = to_float(image, mean, std)
        assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("width, height", SIZES)
def test_preprocessing(v2, width: int, height: int, interpolation: str) -> None:
    """Against the transform that torchvision ships with its weights."""
    presets = pytest.importorskip("torchvision.transforms._presets", reason="torchvision is the reference")
    image = random_image(width, height, "L")
    reference = presets.ImageClassification(
        crop_size=28, resize_size=33, interpolation=v2.InterpolationMode(interpolation)
    )
    expected = reference(image.convert("RGB")).permute(1, 2, 0).numpy()
    pixels = Preprocessing(28, 33, interpolation)(image)
    np.testing.assert_array_equal(pixels, expected)


def test_preprocessing_without_a_crop() -> None:
    image = random_image(50, 30)
    expected = to_float(image.resize((28, 28), Image.Resampling.BILINEAR), IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_array_equal(Preprocessing(28)(image), expected)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (0.001, 0.01)])
@pytest.mark.parametrize("width, height", [*SIZES, (500, 375), (375, 500)])
def test_random_resized_crop_box(
    v2, monkeypatch: pytest.MonkeyPatch, width: int, height: int, scale: tuple[float, float]
) -> None:
    """The box is torchvision's, tries and fallback alike, where both draw the same numbers."""
    from torchvision.transforms import RandomResizedCrop

    ratio = (3 / 4, 4 / 3)
    for seed in range(20):
        box = random_resized_crop_box(Replayed(seed), width, height, scale, ratio)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            Replayed(seed).patch_torch(patch)
            expected = RandomResizedCrop.get_params(random_image(width, height), scale, ratio)  # type: ignore[arg-type]
        assert box == expected


def test_random_crop_offset_reaches_every_place() -> None:
    rng = np.random.default_rng(0)
    offsets = {random_crop_offset(rng, 1) for _ in range(200)}
    assert offsets == {(top, left) for top in range(3) for left in range(3)}


def test_train_transform_applies_what_it_draws() -> None:
    image = random_image(50, 30)
    rng = np.random.default_rng(5)
    box = random_resized_crop_box(rng, 50, 30, (0.08, 1.0), (3 / 4, 4 / 3))
    expected = crop_resize(image, box, 16, "bicubic")
    expected = horizontal_flip(expected) if rng.random() < 0.5 else expected
    pixels = TrainTransform(16, interpolation="bicubic")(image, np.random.default_rng(5))
    np.testing.assert_array_equal(pixels, to_float(expected, IMAGENET_MEAN, IMAGENET_STD))


def test_pad_crop_transform() -> None:
    image = random_image(16, 16)
    rng = np.random.default_rng(3)
    expected = pad_crop(image, 2, random_crop_offset(rng, 2))
    pixels = TrainTransform(16, "pad_crop", flip=False, padding=2)(image, np.random.default_rng(3))
    np.testing.assert_array_equal(pixels, to_float(expected, IMAGENET_MEAN, IMAGENET_STD))


def test_half_of_the_images_are_flipped() -> None:
    image = random_image(8, 8)
    upright = Preprocessing(8)(image)
    rng = np.random.default_rng(0)
    transform = TrainTransform(8, "none")
    views = [transform(image, rng) for _ in range(1000)]
    flipped = sum(np.array_equal(view, upright[:, ::-1]) for view in views)
    assert all(np.array_equal(view, upright) or np.array_equal(view, upright[:, ::-1]) for view in views)
    assert 430 < flipped < 570  # more than four standard deviations wide


def test_transform_without_randomness_is_the_preprocessing() -> None:
    image = random_image(50, 30)
    view = TrainTransform(28, "none", flip=False)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(view, Preprocessing(28)(image))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("kind", "crop"),
        ("interpolation", "cubic"),
        ("padding", -1),
        ("scale", (0.5, 0.1)),
        ("ratio", (0, 1)),
        ("greyscale", 1.5),
        ("erase", -0.1),
    ],
)
def test_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .*, got"):
        TrainTransform(**{"size": 8, field: value})


def test_bad_preprocessing_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"^resize: expected"):
        Preprocessing(8, resize=0)
    with pytest.raises(ValueError, match=r"^interpolation: expected one of nearest, bilinear, bicubic, got"):
        Preprocessing(8, interpolation="lanczos")  # type: ignore[arg-type]


@pytest.mark.parametrize("width, height", [(31, 32), (40, 40), (37, 53), (101, 67)])
def test_ten_crops(v2, width: int, height: int) -> None:
    image = random_image(width, height)
    for crop, expected in zip(ten_crops(image, 30), v2.functional.ten_crop(image, [30]), strict=True):
        assert_same(crop, expected)
    with pytest.raises(ValueError, match=f"size: expected at most {min(image.size)} for an image of {width}x{height}"):
        ten_crops(image, 200)


def test_test_time_views() -> None:
    image = random_image(70, 50)
    preprocessing = Preprocessing(24, 30)
    one, both = (TestTimeViews(preprocessing, views)(image) for views in ("one", "flip"))
    np.testing.assert_array_equal(one[0], preprocessing(image))
    np.testing.assert_array_equal(both, np.stack([one[0], one[0, :, ::-1]]))
    ten = TestTimeViews(preprocessing, "ten_crop")(image)
    assert ten.shape == (10, 24, 24, 3)
    np.testing.assert_array_equal(ten[4], one[0])
    np.testing.assert_array_equal(ten[5:], ten[[1, 0, 3, 2, 4], :, ::-1])
    with pytest.raises(ValueError, match="views: ten crops need a resize above the image size 24, not None"):
        TestTimeViews(Preprocessing(24), "ten_crop")


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_seen_without_its_far_ends(v2, turned: bool) -> None:
    """All of it, resized, would take gigabytes: 1x65500 pixels is what a 200-byte file may hold."""

    def strip(length: int) -> Image.Image:
        pixels = np.random.default_rng(0).integers(0, 256, (1, length, 3), np.uint8)
        return Image.fromarray(pixels.swapaxes(0, 1) if turned else pixels)

    preprocessing = Preprocessing(12, 16)
    exact = v2.functional.center_crop(v2.functional.resize(strip(256), [16]), [12])
    np.testing.assert_array_equal(preprocessing(strip(256)), to_float(exact, IMAGENET_MEAN, IMAGENET_STD))
    for length in (257, 5000, 5001):
        exact = v2.functional.center_crop(v2.functional.resize(strip(length), [16]), [12])
        assert_same_to_one_level(preprocessing(strip(length)), to_float(exact, IMAGENET_MEAN, IMAGENET_STD))
    for view in (Preprocessing(224, 256), TestTimeViews(Preprocessing(224, 256), "ten_crop")):
        assert view(strip(65500)).shape[-3:] == (224, 224, 3)


def assert_same_to_one_level(pixels: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(pixels * IMAGENET_STD, expected * IMAGENET_STD, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("interpolation", MODES)
def test_whole_photographs_as_imagenet_sees_them(v2, images, interpolation: str) -> None:
    presets = pytest.importorskip("torchvision.transforms._presets", reason="torchvision is the reference")
    reference = presets.ImageClassification(crop_size=224, interpolation=v2.InterpolationMode(interpolation))
    transform = TrainTransform(224, interpolation=interpolation)  # type: ignore[arg-type]
    whole = [each for each in images if max(each[1].size) == 640]
    assert len(whole) == 8
    for number, (name, image) in enumerate(whole):
        expected = reference(image).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(
            Preprocessing(224, 256, interpolation)(image),  # type: ignore[arg-type]
            expected,
            err_msg=name,
        )
        view = transform.draw(np.random.default_rng(number), *image.size)
        expected = v2.functional.resized_crop(image, *view.box, [224, 224], v2.InterpolationMode(interpolation))
        expected = v2.functional.hflip(expected) if view.flip else expected
        assert_same(transform.apply_to_image(image, view), expected, name)


@pytest.mark.parametrize("interpolation", MODES)
def test_resize_of_200_real_images(v2, images, interpolation: str) -> None:
    filtered = v2.InterpolationMode(interpolation)
    for number, (name, image) in enumerate(images):
        size = 1 + number % 71
        exact = (size, 1 + number % 53)
        assert_same(resize(image, size, interpolation), v2.functional.resize(image, [size], filtered), name)
        assert_same(resize(image, exact, interpolation), v2.functional.resize(image, [*exact], filtered), name)


def test_crops_and_flips_of_200_real_images(v2, images) -> None:
    rng = np.random.default_rng(0)
    for number, (name, image) in enumerate(images):
        size, padding = 1 + number % 71, number % 7
        assert_same(center_crop(image, size), v2.functional.center_crop(image, [size]), name)
        offset = random_crop_offset(rng, padding)
        padded = v2.functional.pad(image, [padding])
        expected = v2.functional.crop(padded, *offset, image.height, image.width)
        assert_same(pad_crop(image, padding, offset), expected, name)
        assert_same(horizontal_flip(image), v2.functional.hflip(image), name)
        assert_same(vertical_flip(image), v2.functional.vflip(image), name)


def test_ten_crops_of_200_real_images(v2, images) -> None:
    for number, (name, image) in enumerate(images):
        size = 1 + number % min(image.size)
        for crop, expected in zip(ten_crops(image, size), v2.functional.ten_crop(image, [size]), strict=True):
            assert_same(crop, expected, name)


@pytest.mark.parametrize("interpolation", MODES)
def test_preprocessing_of_200_real_images(v2, images, interpolation: str) -> None:
    presets = pytest.importorskip("torchvision.transforms._presets", reason="torchvision is the reference")
    reference = presets.ImageClassification(
        crop_size=28, resize_size=33, interpolation=v2.InterpolationMode(interpolation)
    )
    preprocessing = Preprocessing(28, 33, interpolation)  # type: ignore[arg-type]
    for name, image in images:
        expected = reference(image).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(preprocessing(image), expected, err_msg=name)


FULL = TrainTransform(
    32,
    flip_vertically=True,
    jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    greyscale=0.2,
    augmentation=RandAugment(interpolation="bilinear"),
    erase=0.5,
)


def test_training_view_of_200_real_images(v2, images) -> None:
    """All of training's transforms in a row, with torchvision's functions given what was drawn."""
    from torchvision.transforms.functional import normalize, to_tensor

    policy, drawn = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR), []
    for number, (name, image) in enumerate(images):
        view = FULL.draw(np.random.default_rng(number), *image.size)
        drawn.append(view)
        expected = v2.functional.resized_crop(image, *view.box, [32, 32], v2.InterpolationMode.BILINEAR)
        expected = v2.functional.hflip(expected) if view.flip else expected
        expected = v2.functional.vflip(expected) if view.flip_vertically else expected
        for change, factor in view.jitter:
            expected = getattr(v2.functional, f"adjust_{change}")(expected, factor)
        expected = v2.functional.rgb_to_grayscale(expected, 3) if view.grey else expected
        for op in view.augmentation:
            expected = policy._apply_image_or_video_transform(expected, *op, policy.interpolation, policy._fill)
        tensor = normalize(to_tensor(expected), list(IMAGENET_MEAN), list(IMAGENET_STD))
        if view.erased is not None:
            tensor = v2.functional.erase(tensor, *view.erased, tensor.new_zeros(3, 1, 1))
        pixels = FULL.apply(image, view)
        np.testing.assert_array_equal(pixels, tensor.permute(1, 2, 0).numpy(), err_msg=f"{name} {view}")
    for field in ("flip", "flip_vertically", "grey", "erased"):  # each of the two cases was there
        assert 0 < sum(bool(getattr(view, field)) for view in drawn) < 200


def test_a_view_is_drawn_again_and_survives_pickling() -> None:
    image = random_image(70, 50)
    view = FULL.draw(np.random.default_rng(7), *image.size)
    assert view == FULL.draw(np.random.default_rng(7), *image.size) == pickle.loads(pickle.dumps(view))
    assert view != FULL.draw(np.random.default_rng(8), *image.size)
    np.testing.assert_array_equal(FULL(image, np.random.default_rng(7)), FULL.apply(image, view))
    assert View() == TrainTransform(8, "none", flip=False).draw(np.random.default_rng(0), 9, 9)
