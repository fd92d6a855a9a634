"""OpenCV's decoding: Pillow's pixels before the resize, close to them after it, Pillow's verdict on every file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.config import Config, ConfigError, DataConfig, validate
from flaxcnn.data import DataError, Preprocessing, TrainTransform, folder_splits, images, to_rgb
from flaxcnn.data.geometry import Box, crop_resize
from tests.data.pictures import KINDS, encoded, photographs
from tests.data.test_damaged import damaged

opencv = pytest.importorskip("flaxcnn.data.opencv", reason="OpenCV is not installed")


def jpeg(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def read(content: bytes, box: Box, size: int) -> np.ndarray:
    file = opencv.decode(content, "picture")
    assert isinstance(file, opencv.JpegFile)
    return np.asarray(file.crop_resize(box, size, "bilinear"), int)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_decodes_to_pillows_pixels(options: dict) -> None:
    """A crop that is not resized shows what was decoded."""
    for picture in photographs():
        content = jpeg(picture, **options)
        expected = np.asarray(crop_resize(images.decode(content, ""), Box(31, 77, 224, 224), 224))
        np.testing.assert_array_equal(read(content, Box(31, 77, 224, 224), 224), expected)


@pytest.mark.parametrize(("length", "most"), [(100, 0.3), (202, 0.5), (300, 1.3), (396, 1.8), (420, 4), (426, 4)])
def test_resizes_to_nearly_pillows_pixels(length: int, most: float) -> None:
    for picture in photographs():
        content, box = jpeg(picture), Box(0, 4, length, length)
        off = np.abs(read(content, box, 200) - np.asarray(crop_resize(images.decode(content, ""), box, 200), int))
        assert 0 < off.mean() < most
        # What is off is the sharpness of edges, not their place: one pixel aside is much further off.
        aside = np.abs(read(content, Box(0, 0, length, length), 200) - read(content, box, 200))
        assert off.mean() < aside.mean()


@pytest.mark.parametrize(("enlarged", "factor"), [(2, 2), (4, 4), (8, 8)])
def test_large_photographs_are_decoded_at_a_fraction(enlarged: int, factor: int, monkeypatch) -> None:
    picture = photographs()[0].crop((0, 0, 401, 301))
    content = jpeg(picture.resize((401 * enlarged, 301 * enlarged), Image.Resampling.BICUBIC))
    decoded = []
    imdecode = opencv.cv2.imdecode
    monkeypatch.setattr(opencv.cv2, "imdecode", lambda *args: decoded.append(imdecode(*args)) or decoded[-1])
    box = Box(17 * factor, 90 * factor, 211 * factor, 203 * factor)
    part = read(content, box, 200)
    assert decoded[0].shape == (301 * enlarged // factor, 401 * enlarged // factor, 3)
    expected = np.asarray(crop_resize(images.decode(content, ""), box, 200), int)
    assert np.abs(part - expected).mean() < 4


def test_a_whole_photograph_is_pillows() -> None:
    content = jpeg(photographs()[0])
    file, expected = opencv.decode(content, ""), images.decode(content, "")
    np.testing.assert_array_equal(Preprocessing(64)(file), Preprocessing(64)(expected))
    transform = TrainTransform(64, kind="pad_crop")
    rngs = [np.random.default_rng(0) for _ in range(2)]
    np.testing.assert_array_equal(transform(file, rngs[0]), transform(expected, rngs[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_seen_the_same_way(kind: str) -> None:
    """What is not an upright JPEG file in colour is Pillow's, to the bit."""
    content = encoded(kind, photographs()[1].crop((100, 100, 301, 236)))
    image, expected = opencv.decode(content, "picture"), images.decode(content, "picture")
    assert isinstance(image, opencv.JpegFile) == (kind == "RGB")
    assert image.size == expected.size
    view = TrainTransform(64).draw(np.random.default_rng(3), *image.size)
    seen, wanted = (np.asarray(TrainTransform(64).apply_to_image(each, view), int) for each in (image, expected))
    assert np.abs(seen - wanted).mean() < 4
    if kind != "RGB":
        assert isinstance(image, Image.Image)
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(expected))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_images_are_named_as_by_pillow() -> None:
    for name, content in damaged():
        with pytest.raises(DataError, match=f"^{name}: ") as ours:
            image = opencv.decode(content, name)
            assert isinstance(image, opencv.JpegFile)
            image.crop_resize(Box(0, 0, 40, 60), 32, "bilinear")
        with pytest.raises(DataError) as pillows:
            images.decode(content, name)
        assert str(ours.value) == str(pillows.value)


def test_a_folder_decodes_by_it(tmp_path: Path) -> None:
    for number, picture in enumerate(photographs()):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "photograph.jpg").write_bytes(jpeg(picture))
    source = folder_splits(tmp_path)["all"]()
    assert isinstance(replace(source, decode=opencv.decode).select([1])[0]["image"], opencv.JpegFile)
    assert isinstance(source[0]["image"], Image.Image)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": "digits", "path": None}, "data.decoder is for images that are decoded, not for --data.name digits"),
        ({"augment": "none"}, "data.decoder opencv is for --data.augment random_resized_crop"),
        ({"cache": "memory"}, "data.decoder opencv decodes a part anew in every epoch: leave out data.cache"),
    ],
)
def test_where_it_is_of_no_use_is_said(changes: dict, line: str) -> None:
    data = DataConfig(name="image_folder", path="x", augment="random_resized_crop", decoder="opencv")
    validate(Config(data=data))
    with pytest.raises(ConfigError, match=f"^{line}$"):
        validate(Config(data=replace(data, **changes)))
