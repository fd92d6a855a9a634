"""Real photographs for the tests, in every shape and kind that users have."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps

from flaxcnn.data import to_rgb

KINDS = ("RGB", "L", "RGBA", "P", "LA", "CMYK", "1", "turned", "narrow", "flat")


def photographs() -> list[Image.Image]:
    """scikit-learn's two photographs, 640x427."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in cast(dict, load_sample_images())["images"]]


def encoded(kind: str, picture: Image.Image) -> bytes:
    """The picture as an image file of one of `KINDS`."""
    file, exif = io.BytesIO(), Image.Exif()
    if kind == "turned":
        exif[0x0112] = 1 + picture.width % 8
        picture.save(file, "JPEG", exif=exif)
    elif kind == "P":
        picture.quantize(32).save(file, "PNG", transparency=3)
    elif kind in ("RGBA", "LA"):
        picture = picture.convert(kind)
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(file, "PNG")
    elif kind == "narrow":
        picture.crop((0, 0, 1, picture.height)).save(file, "PNG")
    elif kind == "flat":
        picture.crop((0, 0, picture.width, 1)).save(file, "PNG")
    else:
        picture.convert(kind).save(file, "TIFF" if kind in ("CMYK", "1") else "JPEG")
    return file.getvalue()


def real_files(count: int) -> Iterator[tuple[str, bytes]]:
    """Parts of photographs, of odd sizes and all kinds, and some whole ones: its kind, and an image file of it."""
    rng, pictures = np.random.default_rng(0), photographs()
    for number in range(count):
        kind, picture = KINDS[number % len(KINDS)], pictures[number % 2]
        width, height = (int(n) for n in rng.integers(5, 120, 2))
        left, top = int(rng.integers(picture.width - width)), int(rng.integers(picture.height - height))
        is_whole = number % 21 == 0 and kind not in ("narrow", "flat")
        part = picture if is_whole else picture.crop((left, top, left + width, top + height))
        yield f"{number} {kind}", encoded(kind, part)


def real_images(count: int) -> Iterator[tuple[str, Image.Image]]:
    """The same, decoded."""
    for name, content in real_files(count):
        with Image.open(io.BytesIO(content)) as image:
            yield name, to_rgb(ImageOps.exif_transpose(image))


def assert_same(image: Image.Image, expected: Image.Image, name: object = "") -> None:
    """Equal to the bit."""
    assert (image.mode, image.size) == (expected.mode, expected.size), name
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected), err_msg=str(name))


IDX_STEMS = {"train": "train", "test": "t10k"}


def write_idx(folder: Path, split: str, images: np.ndarray, labels: np.ndarray, *, zipped: bool) -> None:
    """Write a split as MNIST's files: images (n, 28, 28) and labels (n,), uint8."""
    folder.mkdir(exist_ok=True)
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        content = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()
        path = folder / f"{IDX_STEMS[split]}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
