"""Decoding: any image file that Pillow reads becomes an upright 8-bit RGB image, or one clear error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flaxcnn.errors import UserError


class DataError(UserError):
    """A data set or an image that cannot be used; the message is one line that names the folder or file.

    Args:
        reason: what is wrong.
        advice: what to do about it, which ends the message.
    """

    def __init__(self, reason: str, advice: str | None = None):
        super().__init__(reason if advice is None else f"{reason}; {advice}")
        self.reason = reason


Decode = Callable[[bytes, str], Any]  # an image file's content and its name -> what the transform takes, as `decode`


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{os.fspath(path)}: {reason}") from error


def load_image(path: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """Reads an image file as upright RGB.

    Args:
        path: a file in any format that Pillow knows, or one that is open; its content decides, not its extension. Of
            an animation, the first frame is read.

    Returns:
        The decoded image in mode RGB, turned as its EXIF orientation says.

    Raises:
        DataError: the file is missing, empty, truncated, no image, or too large for Pillow's safety limit.
    """
    if not isinstance(path, (str, os.PathLike)):
        return decode(path.read(), str(getattr(path, "name", "the open file")))  # bytes in memory have none
    return decode(read_file(path), os.fspath(path))


def decode(content: bytes, name: str) -> Image.Image:
    """Decodes an image file's content to upright RGB, as `load_image` does.

    Args:
        content: of the file.
        name: for messages.

    Raises:
        DataError: as for `load_image`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            check_size(image)
            return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's readers meet broken files with a dozen unrelated exception types.
        raise DataError(f"{name}: {_reason(content, error)}") from error


def check_size(image: Image.Image) -> None:
    """Refuses what Pillow only warns of: a few such images at once would take all memory."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise DataError(f"{image.width}x{image.height} pixels are more than the limit of {most:,}: make it smaller")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB, as torchvision's default loader does.

    Transparency is dropped, not blended. Unlike `Image.convert`, which clips 16-bit greyscale at 255, this
    keeps the high byte, which is what Pillow itself does with 16-bit colour.

    Args:
        image: of any mode but 32-bit integer ("I") and float ("F"), whose range nothing tells.

    Returns:
        The image in mode RGB (the same object if it was).

    Raises:
        DataError: the mode has no fixed range of values.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        high_byte = np.asarray(image) >> 8  # (h, w)
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"32-bit pixels (mode {image.mode}) have no known range: save the image with 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # Changes no colour; Pillow would warn that convert ignores it.
    return image.convert("RGB")


def _reason(content: bytes, error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read" if content else "the file is empty"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,}: make it smaller"
    return " ".join(f"cannot read this image: {error or type(error).__name__}".split())
