"""What a network says is in image files."""

from __future__ import annotations

import glob
import io
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flaxcnn.data import DataError, load_image
from flaxcnn.data.folder import IMAGE_SUFFIXES
from flaxcnn.errors import UserError

_reading = Lock()
STANDARD_INPUT = "-"
"""Instead of a file's name: an image on standard input."""


class Prediction(NamedTuple):
    """A file's most probable classes, or why it could not be read."""

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    """(label, probability), most probable first."""
    error: str | None = None


def find_images(names: Sequence[str]) -> list[str]:
    """The image files that names of files, folders and shell patterns stand for.

    Args:
        names: a folder stands for all images below it, in sorted order, and `-` for standard input.

    Returns:
        Paths; a file that is named is taken whatever it is called.

    Raises:
        UserError: when a name stands for nothing.
    """
    found: list[str] = []
    for name in names:
        if not name:  # such as an unset variable of the shell: to a Path, the folder one stands in
            raise UserError("the name of an image is empty")
        if name == STANDARD_INPUT:
            found.append(name)
            continue
        matches = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))  # noqa: PTH207, a pattern may be absolute
        files = [file for match in matches for file in _files(Path(match))]
        if not files:
            raise UserError(f"there is no image {'in the folder ' if Path(name).is_dir() else ''}{name}")
        found += files
    return found


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    return sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of one class an image."""
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of each class, where an image may have any number of them."""
    return np.exp(-np.logaddexp(0, -logits))


def predict(
    logits: Callable[[np.ndarray], Any],
    files: Sequence[str],
    *,
    preprocessing: Callable[[Any], np.ndarray],
    class_names: Sequence[str],
    probabilities: Callable[[np.ndarray], np.ndarray] = softmax,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Classify image files, in order; one that cannot be read does not stop the rest.

    Args:
        logits: images (batch_size, h, w, c) to logits (batch_size, classes).
        files: paths, and `-` for standard input.
        preprocessing: a Pillow image to float32 (h, w, c).
        class_names: in the order of the logits.
        probabilities: of logits (n, classes): `softmax` or `sigmoid`.
        top: how many classes to return.
        batch_size: images a step.

    Yields:
        A prediction a file.
    """

    def load(file: str) -> np.ndarray | DataError:
        try:
            return preprocessing(open_image(file))
        except DataError as error:
            return error

    with ThreadPoolExecutor() as pool:
        batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
        ahead = deque(pool.map(load, batch) for batch in batches[:1])
        for batch, following in itertools.zip_longest(batches, batches[1:]):
            if following is not None:  # loaded while this one is computed
                ahead.append(pool.map(load, following))
            loaded = list(ahead.popleft())
            images = [image for image in loaded if isinstance(image, np.ndarray)]
            rows = iter(probabilities(_padded(logits, images, batch_size)) if images else ())
            for file, image in zip(batch, loaded, strict=True):
                if isinstance(image, DataError):
                    yield Prediction(file, error=str(image))
                else:
                    yield Prediction(file, _most_probable(next(rows), class_names, top))


def open_image(file: str) -> Image.Image:
    """The image in a file, or on standard input, as upright RGB.

    Raises:
        DataError: when it cannot be read.
    """
    if file != STANDARD_INPUT:
        return load_image(file)
    return load_image(_standard_input())


def _standard_input() -> io.BytesIO:
    content = io.BytesIO(_read_standard_input())
    content.name = "standard input"
    return content


def _read_standard_input() -> bytes:
    with _reading:  # or a second thread would find nothing left
        return _standard_input_once()


@cache
def _standard_input_once() -> bytes:
    return sys.stdin.buffer.read()


def _padded(logits: Callable[[np.ndarray], Any], images: list[np.ndarray], batch_size: int) -> np.ndarray:
    """The logits (n, classes) of a batch filled up to one size, so that the network is compiled once."""
    padding = [np.zeros_like(images[0])] * (batch_size - len(images))
    return np.asarray(logits(np.stack(images + padding)), np.float64)[: len(images)]


def _most_probable(row: np.ndarray, class_names: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    return tuple((str(class_names[int(i)]), float(row[i])) for i in np.argsort(-row, kind="stable")[:top])
