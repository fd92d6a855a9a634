"""The figures of the chapters on LeNet, AlexNet, VGG and GoogLeNet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from docs.figures.draw import (
    BLACK,
    BLUE,
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
    """What one unit behind three 3x3 convolutions sees of each map below it, and of that what its middle unit sees."""
    figure, axes = canvas(7.6, 2.2)
    cell, middle = 0.25, 1.2
    x = 0.1
    for layers in (3, 2, 1, 0):
        size = receptive_field([(3, 1)] * layers)
        colors = np.full((size, size), to_hex(lighter(BLUE, 0.75)), dtype=object)
        inner = slice(size // 2 - 1, size // 2 + 2) if layers else slice(0, 1)
        colors[inner, inner] = to_hex(lighter(BLUE, 0.45))
        colors[size // 2, size // 2] = to_hex(lighter(VERMILION, 0.3))
        grid(axes, x, middle + size * cell / 2, colors.tolist(), cell=cell, edge="white")
        axes.text(x + size * cell / 2, 0.16, f"{size}×{size}", ha="center", va="center", fontsize=9)
        x += size * cell
        if layers:
            axes.annotate("", (x + 0.95, middle), (x + 0.1, middle), arrowprops={"arrowstyle": "-|>", "color": BLACK})
            axes.text(x + 0.52, middle + 0.08, "conv 3×3", ha="center", va="bottom", fontsize=9)
            x += 1.05
    return figure


def inception() -> Figure:
    """Block 3a of GoogLeNet."""
    one, reduced3, three, reduced5, five, pooled = INCEPTIONS["3a"]
    inputs = 192
    diagram = Diagram(7.6, 3.3)
    columns = (1.0, 2.85, 4.7, 6.55)
    diagram.box("in", 3.775, 3.05, f"28×28×{inputs}", kind="other")
    diagram.box("1", columns[0], 1.725, f"conv 1×1, {one}")
    diagram.box("r3", columns[1], 2.1, f"conv 1×1, {reduced3}", kind="depthwise")
    diagram.box("3", columns[1], 1.35, f"conv 3×3, {three}")
    diagram.box("r5", columns[2], 2.1, f"conv 1×1, {reduced5}", kind="depthwise")
    diagram.box("5", columns[2], 1.35, f"conv 5×5, {five}")
    diagram.box("p", columns[3], 2.1, "max pool 3×3", kind="pool")
    diagram.box("rp", columns[3], 1.35, f"conv 1×1, {pooled}")
    outputs = one + three + five + pooled
    diagram.box(
        "out", 3.775, 0.4, f"concatenate: {one} + {three} + {five} + {pooled} = {outputs}", kind="join", width=3.4
    )
    for first, last in (("1", "1"), ("r3", "3"), ("r5", "5"), ("p", "rp")):
        diagram.arrow("in", first, bend=2.6)
        if first != last:
            diagram.arrow(first, last)
        diagram.arrow(last, "out", bend=0.85)
    return diagram.figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "lenet.svg": lambda: architecture_of("lenet", num_classes=10),
    "alexnet.svg": lambda: architecture_of("alexnet"),
    "vgg16.svg": lambda: architecture_of("vgg16"),
    "googlenet.svg": lambda: architecture_of(
        "googlenet",
        {r"inception(\d\w)": r"inception\n\1"},
        rows=2,
        heads={"inception\n4a": "aux1", "inception\n4d": "aux2"},
    ),
    "stacked_convolutions.svg": stacked_convolutions,
    "inception.svg": inception,
}
