"""Decoding against torchvision's default loader, and what happens to files that cannot be decoded."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import DataError, load_image, to_rgb
from tests.data.pictures import real_files


def random_image(mode: str, width: int = 13, height: int = 7) -> Image.Image:
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def transparent_palette() -> Image.Image:
    image = random_image("RGB").quantize(16)
    image.info["transparency"] = bytes(range(16))
    return image


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"),
        ("RGB", "jpg"),
        ("RGB", "bmp"),
        ("RGB", "webp"),
        ("RGB", "tiff"),
        ("L", "png"),
        ("L", "jpg"),
        ("1", "png"),
        ("P", "gif"),
        ("P", "png"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("LA", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tiff"),
    ],
)
def test_decodes_as_torchvisions_loader(tmp_path: Path, mode: str, suffix: str) -> None:
    folder = pytest.importorskip("torchvision.datasets.folder", reason="torchvision is the reference")
    path = tmp_path / f"image.{suffix}"
    random_image(mode).save(path)
    image = load_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(folder.default_loader(str(path))))


def test_transparent_palette_keeps_its_colours_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    transparent_palette().save(path, transparency=bytes(range(16)))
    expected = transparent_palette().convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(expected))


def test_16_bit_greyscale_keeps_its_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for suffix in ("png", "tiff"):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(values).save(path)
        pixels = np.asarray(load_image(path))  # (h, w, c)
        assert pixels.tolist() == [[[v] * 3 for v in (0, 0, 1, 128, 255)]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "image.tiff"
    Image.fromarray(np.zeros((2, 2), dtype)).save(path)
    with pytest.raises(DataError, match=r"image.tiff.*no known range"):
        load_image(path)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def test_200_real_images_decode_as_by_torchvisions_loader(tmp_path: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets.folder", reason="torchvision is the reference")
    path, kinds = tmp_path / "image", Counter()
    for name, content in real_files(200):
        path.write_bytes(content)
        with Image.open(path) as image:
            kinds[image.mode] += 1
            upright = UPRIGHT[image.getexif().get(0x0112, 1)]
        expected = upright(np.asarray(folder.default_loader(str(path))))
        np.testing.assert_array_equal(np.asarray(load_image(path)), expected, err_msg=name)
    assert kinds.keys() == {"RGB", "L", "RGBA", "P", "LA", "CMYK", "1"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize(("orientation", "upright"), UPRIGHT.items())
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, upright) -> None:
    stored, turned = tmp_path / f"stored.{suffix}", tmp_path / f"turned.{suffix}"
    random_image("RGB").save(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    random_image("RGB").save(turned, exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(turned)), upright(np.asarray(load_image(stored))))


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    random_image("RGB").save(path, format="PNG")
    np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(random_image("RGB")))


def test_rgb_is_returned_as_it_is() -> None:
    image = random_image("RGB")
    assert to_rgb(image) is image


def test_to_rgb_leaves_its_argument_alone() -> None:
    image = transparent_palette()
    to_rgb(image)
    assert image.mode == "P" and "transparency" in image.info


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_file_is_one_line_that_names_it(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    random_image("RGB", 64, 64).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError) as caught:
        load_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert ("the file is empty" in str(caught.value)) == (share == 0)


def test_text_in_an_image_file(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"page.jpg: not an image"):
        load_image(path)


def test_an_open_file_and_bytes_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    random_image("RGB").save(path)
    for stream in (path.open("rb"), io.BytesIO(path.read_bytes())):
        with stream:
            np.testing.assert_array_equal(np.asarray(load_image(stream)), np.asarray(random_image("RGB")))
    with pytest.raises(DataError, match=r"^the open file: not an image that Pillow can read"):
        load_image(io.BytesIO(b"no image"))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.png: no such file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"directory"):
        load_image(tmp_path)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    random_image("RGB").save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13 * 7 // 2 - 1)
    with pytest.raises(DataError, match=r"bomb.png: more pixels than the limit of 44: make it smaller"):
        load_image(path)


def test_more_pixels_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    random_image("RGB").save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13 * 7)
    load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13 * 7 - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(DataError, match=r"large.png.*the limit of 90: "):
        load_image(path)
