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
MAKER = r"Matplotlib v[\d.]+"
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
    compare(drawn.decode(), (IMAGES / name).read_text(), f"python -m docs.figures {name}")


def compare(drawn: str, stored: str, message: str) -> None:
    """Two SVGs by what is drawn; by what is written in them, where another version of Matplotlib draws otherwise."""
    (maker, words, numbers), (stored_maker, stored_words, stored_numbers) = map(parts, (drawn, stored))
    assert texts(drawn) == texts(stored), message
    if maker == stored_maker or words == stored_words:
        assert words == stored_words, message
        # A curve is computed, and its last digits are the processor's; another version may move texts by a little.
        # In points: a line is at least 0.6 wide.
        tolerance = 0.3 if maker == stored_maker else 3
        np.testing.assert_allclose(numbers, stored_numbers, rtol=0, atol=tolerance, err_msg=message)


def parts(svg: str) -> tuple[str, list[str], list[float]]:
    """Who wrote an SVG, and what is in it: words, and numbers; names that are made from its numbers left out."""
    (maker,) = re.findall(MAKER, svg)
    text = re.sub(rf"{MAKER}|\b[pm][0-9a-f]{{10}}\b", "", svg)
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    return maker, re.split(number, text), [float(value) for value in re.findall(number, text)]


def texts(svg: str) -> list[str]:
    """What is written in an SVG: Matplotlib draws the letters, and says before them in a comment what they are."""
    return re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)


@pytest.mark.parametrize("maker", ["Matplotlib v3.11.2", "Matplotlib v9.8.7"])
def test_a_changed_figure_is_seen(maker: str) -> None:
    """Whoever has drawn it; another version's outlines are not compared."""
    stored = re.sub(MAKER, "Matplotlib v3.11.2", (IMAGES / "connections.svg").read_text())
    drawn = stored.replace("Matplotlib v3.11.2", maker)
    compare(drawn, stored, "")
    for changed in (drawn.replace(f"<!-- {texts(drawn)[0]} -->", "<!-- x -->"), re.sub(r"\bM \d+", "M 999", drawn)):
        with pytest.raises(AssertionError):
            compare(changed, stored, "")
    outlines = drawn.replace("<path d", '<path id="a" d', 1)
    if maker == "Matplotlib v3.11.2":
        with pytest.raises(AssertionError):
            compare(outlines, stored, "")
    else:
        compare(outlines, stored, "")


def test_no_figure_is_left_over() -> None:
    assert {path.name for path in IMAGES.iterdir()} == MEASURED | set(FIGURES)
