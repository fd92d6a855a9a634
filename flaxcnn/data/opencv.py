"""A faster decoder for training: OpenCV decodes and resizes photographs, of which training sees random parts."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from flaxcnn.data import images
from flaxcnn.data.geometry import Box, Interpolation, crop_resize

cv2.setNumThreads(1)  # The loader's threads are one a core already.

_ORIENTATION = 0x0112
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # blue, green, red, as it decodes fastest
_REDUCED = {  # What libjpeg makes at a fraction of the size; the names say grey, the flag above says colour.
    1: _FLAGS,
    2: _FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: _FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: _FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_FILTERS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class JpegFile:
    """A JPEG file that is decoded once it is known which part of it is wanted, and how large."""

    content: bytes
    name: str
    size: tuple[int, int]  # width, height

    def load(self) -> Image.Image:
        """Decodes all of the file by Pillow.

        Raises:
            DataError: the file is damaged.
        """
        return images.decode(self.content, self.name)

    def crop_resize(self, box: Box, size: int, interpolation: Interpolation) -> Image.Image:
        """Decodes the file, cuts a box out and resizes it to `size` x `size` pixels.

        A box of twice the size or more is decoded at a half, a quarter or an eighth of its pixels, and begins at a
        whole one of these.

        Raises:
            DataError: the file is damaged.
        """
        factor = max(factor for factor in _REDUCED if factor == 1 or min(box.height, box.width) >= factor * size)
        pixels = cv2.imdecode(np.frombuffer(self.content, np.uint8), _REDUCED[factor])
        if pixels is None:  # Pillow reads a little more, or says what is wrong.
            return crop_resize(self.load(), box, size, interpolation)
        top, left, height, width = (round(length / factor) for length in box)
        part = _resized(pixels[top : top + height, left : left + width], size, interpolation)
        return Image.fromarray(cv2.cvtColor(part, cv2.COLOR_BGR2RGB))


def _resized(part: np.ndarray, size: int, interpolation: Interpolation) -> np.ndarray:
    """(size, size, 3) of (h, w, 3), nearly as by Pillow, whose filters grow wider where an image shrinks."""
    shrinks = [max(length / size, 1.0) for length in part.shape[:2]]
    method = _FILTERS[interpolation]
    if interpolation == "bilinear" and 1 < max(shrinks) <= 2:
        # A hat of half the width s has the variance s * s / 6: three taps before OpenCV's, of half the width 1, make up
        # for what that lacks. That is closer to Pillow than averages over areas, and takes less than half their time.
        rows, columns = (np.array([a, 1 - 2 * a, a]) for a in ((s * s - 1) / 12 for s in shrinks))
        border = cv2.BORDER_REPLICATE | cv2.BORDER_ISOLATED  # of the part, as if it had been cut out
        part = cv2.sepFilter2D(part, -1, columns, rows, borderType=border)
    elif interpolation != "nearest" and min(part.shape[:2]) >= size:
        method = cv2.INTER_AREA
    return cv2.resize(part, (size, size), interpolation=method)


def decode(content: bytes, name: str) -> Image.Image | JpegFile:
    """As `flaxcnn.data.images.decode`, but upright JPEG files in colour wait for the part that is wanted.

    Args:
        content: of an image file.
        name: for messages.

    Raises:
        DataError: as for `load_image`.
    """
    # Whatever is wrong with a file, Pillow says it below.
    with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as header:
        images.check_size(header)
        is_plain = header.mode == "RGB" and header.getexif().get(_ORIENTATION, 1) == 1
        if is_plain and header.format in ("JPEG", "MPO"):
            return JpegFile(content, name, header.size)
    return images.decode(content, name)
