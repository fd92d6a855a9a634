"""The guide's figures are what their code draws."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.figures.__main__ import all_figures
from docs.figures.draw import IMAGES, save

FIGURES = all_figures()
# Of trainings, and not drawn anew: benchmarks/degradation.py and `train` wrote them.
MEASURED = {"degradation.svg", "lenet_cifar10.png"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "connections.svg" else pytest.mark.slow) for name in FIGURES]
)
def test_the_file_is_what_the_code_draws(name: str, tmp_path: Path) -> None:
    drawn, again = [save(FIGURES[name](), name, tmp_path).read_bytes() for _ in range(2)]
    assert drawn == again, "a figure depends on something else than its code"
    assert 2_000 < len(drawn) < 150_000
    if name.endswith(".png"):
        files = tmp_path / name, IMAGES / name
        pixels, stored = (np.asarray(Image.open(path).convert("RGB"), float) for path in files)
        assert pixels.shape == stored.shape and np.abs(pixels - stored).mean() < 2, f"python -m docs.figures {name}"
        return
    (maker, words, numbers), (stored_maker, stored_words, stored_numbers) = map(parts, (tmp_path / name, IMAGES / name))
    if maker != stored_maker:
        pytest.skip(f"the file is {stored_maker}'s, which writes others than {maker}")
    assert words == stored_words, f"python -m docs.figures {name}"
    # A curve is computed, and its last digits are the processor's. In points: a line is at least 0.6 wide.
    np.testing.assert_allclose(numbers, stored_numbers, rtol=0, atol=0.3, err_msg=f"python -m docs.figures {name}")


def parts(path: Path) -> tuple[str, list[str], list[float]]:
    """Who wrote an SVG, and what is in it: words, and numbers; names that are made from its numbers left out."""
    text = re.sub(r"\b[pm][0-9a-f]{10}\b", "", path.read_text())
    (maker,) = re.findall(r"Matplotlib v[\d.]+", text)
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    return maker, re.split(number, text), [float(value) for value in re.findall(number, text)]


def test_no_figure_is_left_over() -> None:
    assert {path.name for path in IMAGES.iterdir()} == MEASURED | set(FIGURES)
