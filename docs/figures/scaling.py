"""Figures of the chapter on EfficientNet."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docs.figures.draw import BLACK, BLUE, GREY, WIDTH, Diagram, architecture_of, canvas, lighter


def compound_scaling() -> Figure:
    """A network, and four larger ones: by width, depth, resolution, and all three."""
    figure, axes = canvas(WIDTH, 2.75)
    titles = ("baseline", "width", "depth", "resolution", "compound")
    # Factors on width, depth and resolution, larger than B1's so that they can be seen.
    factors = ((1, 1, 1), (1.7, 1, 1), (1, 1.7, 1), (1, 1, 1.7), (1.3, 1.4, 1.35))
    for index, (title, scales) in enumerate(zip(titles, factors, strict=True)):
        _stack(axes, 0.9 + 1.8 * index, title, *scales)
    return figure


def _stack(axes: Axes, x: float, title: str, width: float, depth: float, resolution: float) -> None:
    """Layers on one another, the image at the bottom; a layer as wide as its channels, in three stages."""
    axes.text(x, 2.62, title, ha="center", va="center", fontsize=8, fontweight="bold")
    side = 0.42 * resolution
    axes.add_patch(Rectangle((x - side / 2, 0.1), side, side, facecolor=lighter(GREY, 0.6), edgecolor=GREY))
    for line in range(1, round(6 * resolution)):
        at = 0.1 + line * side / round(6 * resolution)
        axes.plot([x - side / 2, x + side / 2], [at, at], color="white", linewidth=0.5)
        axes.plot([x - side / 2 + at - 0.1] * 2, [0.1, 0.1 + side], color="white", linewidth=0.5)
    y, high = 0.1 + side + 0.12, 0.1
    for channels, layers in ((0.35, 2), (0.6, 3), (0.85, 2)):
        for _ in range(round(layers * depth)):
            wide = channels * width
            corner = (x - wide / 2, y)
            axes.add_patch(
                Rectangle(corner, wide, high * 0.8, facecolor=lighter(BLUE, 0.45), edgecolor=BLUE, linewidth=0.8)
            )
            y += high
        y += 0.07
    axes.annotate("", (x, y + 0.12), (x, y - 0.04), arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": 1})


def mbconv() -> Figure:
    """The inverted residual with squeeze-and-excitation."""
    diagram = Diagram(5.2, 4.7)
    x, side = 1.7, 3.9
    diagram.box("in", x, 4.5, "x: c", kind="other", width=0.9, height=0.28)
    diagram.box("widen", x, 3.85, "1×1, 6c", height=0.34)
    diagram.box("depthwise", x, 3.15, "k×k depthwise, 6c", kind="depthwise", height=0.34)
    diagram.sign("times", x, 1.5, "×")
    diagram.box("narrow", x, 0.95, "1×1, c", height=0.34)
    diagram.sign("sum", x, 0.3, "+")
    diagram.box("mean", side, 2.55, "global mean", kind="pool", height=0.3)
    diagram.box("fc1", side, 2.05, "1×1, c/4", kind="linear", height=0.3)
    diagram.box("fc2", side, 1.5, "1×1, 6c", kind="linear", height=0.3)
    diagram.arrow("in", "widen")
    diagram.arrow("widen", "depthwise", text="BN, swish")
    diagram.arrow("depthwise", "times")
    diagram.arrow("times", "narrow")
    diagram.arrow("narrow", "sum", text="BN")
    diagram.arrow("in", "sum", via=0.6)
    diagram.arrow("mean", "fc1")
    diagram.arrow("fc1", "fc2", text="swish")
    style = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    diagram.axes.annotate("", (side - 0.65, 2.55), (x, 2.55), arrowprops=style)
    diagram.axes.annotate("", (x + 0.11, 1.5), (side - 0.65, 1.5), arrowprops=style)
    diagram.text(x + 0.08, 2.75, "BN, swish", align="left")
    diagram.text((x + side - 0.65) / 2 + 0.05, 1.64, "sigmoid")
    return diagram.figure


FIGURES = {
    "compound_scaling.svg": compound_scaling,
    "mbconv.svg": mbconv,
    "efficientnet_b0.svg": partial(
        architecture_of, "efficientnet_b0", {r"features\.[1-7]\.\d+": "MBConv\n{kernel}"}, rows=1
    ),
}
