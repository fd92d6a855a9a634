"""The figures of the chapters on LeNet, AlexNet, VGG and GoogLeNet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from docs.figures.draw import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    Diagram,
    architecture_of,
    canvas,
    grid,
    lighter,
)
from flaxcnn.analysis import receptive_field
from flaxcnn.models.googlenet import INCEPTIONS


def stacked_convolutions() -> Figure:
    """Which pixels one unit behind one, two and three 3x3 convolutions sees."""
    figure, axes = canvas(8.0, 2.3)
    cell, size = 0.22, 7
    colors = [VERMILION, ORANGE, SKY, BLUE]  # of the unit itself, and of what it sees a layer further down
    for layers in range(4):
        seen = [receptive_field([(3, 1)] * depth) for depth in range(layers + 1)]
        cells = np.full((size, size), "#ffffff", dtype=object)
        for width, color in reversed(list(zip(seen, colors, strict=False))):
            first = (size - width) // 2
            cells[first : first + width, first : first + width] = lighter_hex(color)
        x = 0.15 + 2.0 * (3 - layers)
        grid(axes, x, 1.9, cells.tolist(), cell=cell, edge=GREY)
        label = f"F = {seen[-1]}"
        axes.text(x + size * cell / 2, 0.3, label, ha="center", va="top", fontsize=9)
    return figure


def lighter_hex(color: str) -> tuple[float, float, float]:
    return lighter(color, 0.35)


def inception() -> Figure:
    """Block 3a of GoogLeNet."""
    one, reduced3, three, reduced5, five, pooled = INCEPTIONS["3a"]
    inputs = 192
    diagram = Diagram(7.6, 3.3)
    columns = (1.0, 2.85, 4.7, 6.55)
    diagram.box("in", 3.775, 3.05, f"28×28×{inputs}", kind="other")
    diagram.box("1", columns[0], 1.35, f"conv 1×1, {one}")
    diagram.box("r3", columns[1], 2.1, f"conv 1×1, {reduced3}", kind="depthwise")
    diagram.box("3", columns[1], 1.35, f"conv 3×3, {three}")
    diagram.box("r5", columns[2], 2.1, f"conv 1×1, {reduced5}", kind="depthwise")
    diagram.box("5", columns[2], 1.35, f"conv 5×5, {five}")
    diagram.box("p", columns[3], 2.1, "max pool 3×3", kind="pool")
    diagram.box("rp", columns[3], 1.35, f"conv 1×1, {pooled}")
    outputs = one + three + five + pooled
    diagram.box("out", 3.775, 0.4, f"concatenate: {one} + {three} + {five} + {pooled} = {outputs}", kind="join", width=3.4)
    for branch in (("1",), ("r3", "3"), ("r5", "5"), ("p", "rp")):
        for start, end in zip(("in", *branch), (*branch, "out"), strict=True):
            diagram.arrow(start, end)
    return diagram.figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "lenet.svg": lambda: architecture_of("lenet", num_classes=10),
    "alexnet.svg": lambda: architecture_of("alexnet"),
    "vgg16.svg": lambda: architecture_of("vgg16"),
    "googlenet.svg": lambda: architecture_of("googlenet", {r"inception\d\w": "inception"}, rows=2),
    "stacked_convolutions.svg": stacked_convolutions,
    "inception.svg": inception,
}
