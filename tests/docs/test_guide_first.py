"""The guide's chapters from the basics to GoogLeNet say what the library computes, and their figures can be drawn."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flaxcnn
from docs.figures import basics
from docs.figures.draw import architecture_of, save, stages
from flaxcnn.analysis import Summary, conv_cost, receptive_field, summarize
from flaxcnn.models.googlenet import INCEPTIONS

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
CHAPTERS = ("basics", "lenet", "alexnet", "vgg", "googlenet")
LANGUAGES = (".md", ".zh.md")


def read(chapter: str, language: str) -> str:
    """A page, the thousands of its formulas written as in its prose."""
    return (GUIDE / f"{chapter}{language}").read_text(encoding="utf-8").replace("{,}", ",")


@cache
def summary(name: str, num_classes: int = 1000) -> Summary:
    return summarize(flaxcnn.create_model(name, num_classes=num_classes))


def linear(name: str, num_classes: int = 1000) -> int:
    """Parameters of a network's fully connected layers."""
    return sum(layer.parameters for layer in summary(name, num_classes).layers if layer.kind == "Linear")


def quoted(chapter: str) -> list[str]:
    """What a chapter must say, computed."""
    match chapter:
        case "lenet":
            return [f"{summary('lenet', 10).parameters:,}", f"{linear('lenet', 10):,}"]
        case "alexnet":
            return [
                f"{summary('alexnet').parameters:,}",
                f"{linear('alexnet'):,}",
                f"{summary('alexnet_half').parameters:,}",
            ]
        case "vgg":
            rows = []
            for name in ("vgg11", "vgg13", "vgg16", "vgg19"):
                whole = summary(name)
                depths = flaxcnn.create_model(name).depths  # pyright: ignore[reportAttributeAccessIssue]
                listed = ", ".join(map(str, depths))
                rows.append(
                    f"| `{name}` | {listed} | {sum(depths)} | {whole.parameters:,} | {whole.macs / 1e9:.3f} G |"
                )
            last_pool = [layer for layer in summary("vgg16").layers if layer.kind == "max_pool"][-1]
            first_linear = next(layer for layer in summary("vgg16").layers if layer.kind == "Linear")
            assert last_pool.field
            return [*rows, f"{last_pool.field[0].size} ", f"{first_linear.parameters:,}"]
        case "googlenet":
            reduced = [conv_cost(512, 24, 1, 1).parameters, conv_cost(24, 64, 5, 1).parameters]
            one, _, three, _, five, pooled = INCEPTIONS["3a"]
            return [
                f"{conv_cost(512, 64, 5, 1).parameters:,}",
                f"{reduced[0]:,} + {reduced[1]:,} = {sum(reduced):,}",
                f"{one} + {three} + {five} + {pooled} = {one + three + five + pooled}",
            ]
        case _:
            raise ValueError(chapter)


@pytest.mark.parametrize("chapter", ["lenet", "alexnet", "vgg", "googlenet"])
def test_numbers(chapter: str) -> None:
    for language in LANGUAGES:
        text = " ".join(read(chapter, language).split())
        missing = [number for number in quoted(chapter) if number not in text]
        assert not missing, f"{chapter}{language} does not say {missing}"


def test_vgg_saves_weights() -> None:
    assert receptive_field([(3, 1)] * 3) == receptive_field([(7, 1)])
    assert 3 * conv_cost(1, 1, 3, 1).parameters == 27 and conv_cost(1, 1, 7, 1).parameters == 49


def test_code_of_basics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes pictures
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", read("basics", ".md"), re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/guide/basics.md", "exec", dont_inherit=True), names)
    assert names["maps"].shape == (1, 112, 112, 64) and names["weights"] == 9408
    assert names["smaller"].shape == (1, 56, 56, 64)
    np.testing.assert_allclose(names["slopes"], (0.25, 0.0025), atol=5e-5)
    np.testing.assert_allclose(names["vanished"], 9.5e-7, rtol=0.01)
    np.testing.assert_allclose(names["one_label"], 2.30, atol=5e-3)
    np.testing.assert_allclose(names["many_labels"], 0.69, atol=5e-3)
    np.testing.assert_allclose(names["gradient"][0, :5], (0.1, 0.1, 0.1, -0.9, 0.1), atol=1e-6)
    # The loop of the page is the walk of the figure.
    last = basics.path(flaxcnn.optim.adam(0.5))[-1]
    np.testing.assert_allclose(names["loss"], last[0] ** 2 / 20 + last[1] ** 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_languages(chapter: str) -> None:
    english, chinese = (read(chapter, language) for language in LANGUAGES)
    for what, pattern in {
        "code": r"^```[\s\S]*?^```$|^    .*$",
        "figures": r"^!\[.*\]\((.*)\)$",
        "headings": r"^(#+) ",
        "exercises": r"^(\d+)\. ",
    }.items():
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        assert found[0] == found[1], f"{chapter}: {what} differ"
    for picture in re.findall(r"\((\.\./images/[^)]*)\)", english):
        assert (GUIDE / picture).is_file(), f"{picture} is not drawn: python -m docs.figures"


def test_stages_count_equal_blocks() -> None:
    found = stages(flaxcnn.create_model("resnet18"), {r"layer\d\.\d": "block"}, image_size=64)
    blocks = [(stage.output, stage.count) for stage in found if stage.kind == "block"]
    assert blocks == [((16, 16, 64), 2), ((8, 8, 128), 2), ((4, 4, 256), 2), ((2, 2, 512), 2)]


def test_architecture(tmp_path: Path) -> None:
    assert save(architecture_of("lenet", num_classes=10), "lenet.png", tmp_path).stat().st_size > 5_000
