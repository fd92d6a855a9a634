"""Figures of the chapters on MobileNet and ShuffleNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from docs.figures.draw import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    WIDTH,
    Diagram,
    architecture_of,
    canvas,
    grid,
    lighter,
)


def depthwise_separable() -> Figure:
    """The kernels of a standard convolution, and of a depthwise and a pointwise one."""
    figure, axes = canvas(WIDTH, 2.8)
    k, m, one = 0.42, 0.9, 0.14
    words = partial(axes.text, ha="center", va="center", fontsize=8)
    words(1.5, 2.65, "standard", fontweight="bold")
    words(6.2, 2.65, "depthwise separable", fontweight="bold")
    for row in range(3):
        cuboid(axes, 0.9, 0.75 + 0.5 * row, m, k, k, BLUE)
        cuboid(axes, 4.35, 0.75 + 0.5 * row, one, k, k, SKY)
        cuboid(axes, 7.1, 0.75 + 0.5 * row, m, one, one, BLUE)
    words(0.55, 1.45, "N\nkernels")
    words(4.0, 1.45, "M\nkernels")
    words(6.75, 1.45, "N\nkernels")
    words(1.5, 0.5, "K × K × M")
    words(4.5, 0.5, "K × K × 1")
    words(7.6, 0.5, "1 × 1 × M")
    words(1.5, 0.2, "$K^2 M N$", fontsize=9)
    words(4.5, 0.2, "$K^2 M$", fontsize=9)
    words(7.6, 0.2, "$M N$", fontsize=9)
    words(6.05, 0.2, "$+$", fontsize=11)
    words(6.0, 1.45, "then", fontsize=8)
    words(4.5, 2.3, "depthwise")
    words(7.6, 2.3, "pointwise")
    return figure


def cuboid(axes: Axes, x: float, y: float, width: float, height: float, depth: float, color: str) -> None:
    """A kernel, its channels from left to right; x and y are of its lower left front corner."""
    back = 0.45 * depth
    front = [(x, y), (x + width, y), (x + width, y + height * 0.6), (x, y + height * 0.6)]
    top = [front[3], front[2], (front[2][0] + back, front[2][1] + back), (front[3][0] + back, front[3][1] + back)]
    flank = [front[1], (front[1][0] + back, front[1][1] + back), top[2], front[2]]
    for shape, tone in ((front, 0.45), (top, 0.7), (flank, 0.2)):
        axes.add_patch(Polygon(shape, facecolor=lighter(color, tone), edgecolor="white", linewidth=0.6))


def inverted_residual() -> Figure:
    """What is wide and what is narrow in ResNet's and in MobileNetV2's bottleneck."""
    figure, axes = canvas(WIDTH, 2.9)
    _profile(axes, 0.35, "residual (ResNet)", [256, 64, 64, 256], ["1×1", "3×3", "1×1"], 0.0048)
    _profile(
        axes,
        4.85,
        "inverted residual (MobileNetV2)",
        [24, 144, 144, 24],
        ["1×1", "3×3\ndepthwise", "1×1\nlinear"],
        0.0085,
    )
    return figure


def _profile(axes: Axes, left: float, title: str, channels: list[int], layers: list[str], scale: float) -> None:
    """Maps as slabs as tall as they have channels, what computes the next between them, and a shortcut over them."""
    words = partial(axes.text, ha="center", va="center", fontsize=8)
    floor, step, width = 1.25, 1.12, 0.3
    words(left + 1.5 * step + width / 2, 2.75, title, fontweight="bold")
    for index, count in enumerate(channels):
        x, tall = left + index * step, scale * count
        cuboid(axes, x, floor - tall / 2, width, tall / 0.6, 0.25, GREEN if index in (0, 3) else GREY)
        words(x + width / 2, 0.45, f"c = {count}" if index == 0 else str(count))
        if index < 3:
            _arrow(axes, (x + width + 0.14, floor), (x + step - 0.04, floor))
            words(x + (step + width) / 2 + 0.05, floor - 0.28, layers[index], fontsize=7)
    top = 2.35
    ends = [left + width / 2, left + 3 * step + width / 2]
    clear = [floor + scale * count / 2 + 0.2 for count in (channels[0], channels[3])]
    axes.plot([ends[0], ends[0], ends[1]], [clear[0], top, top], color=BLACK, linewidth=1)
    _arrow(axes, (ends[1], top), (ends[1], clear[1]))
    words(sum(ends) / 2, top + 0.12, "+ x")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = BLACK) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", end, start, arrowprops=style)


def relu_spiral() -> Figure:
    """A plane put into n dimensions at random, ReLU, and the best linear way back."""
    turns = np.linspace(0, 4 * np.pi, 400)
    plane = np.stack([turns * np.cos(turns), turns * np.sin(turns)], axis=1) / turns.max()
    figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
    panels = figure.subplots(1, 6)
    for axes, n in zip(panels, (None, 2, 3, 5, 15, 30), strict=True):
        points = plane
        if n is not None:
            random = np.random.default_rng(2)
            hidden = np.maximum(plane @ random.normal(size=(2, n)), 0)
            points = hidden @ np.linalg.lstsq(hidden, plane, rcond=None)[0]
        axes.scatter(*points.T, c=turns, cmap="viridis", s=2)
        axes.set_title("input" if n is None else f"n = {n}", fontsize=8)
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=[], yticks=[])
    return figure


def hard_swish() -> Figure:
    """ReLU6, swish and hard-swish; sigmoid and hard sigmoid."""
    x = np.linspace(-6, 8, 281)
    sigmoid, hard = 1 / (1 + np.exp(-x)), np.clip(x + 3, 0, 6) / 6
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(x, np.clip(x, 0, 6), color=GREY, label="ReLU6")
    left.plot(x, x * sigmoid, color=SKY, linewidth=2.5, label="swish")
    left.plot(x, x * hard, color=VERMILION, linewidth=1.2, label="hard-swish")
    right.plot(x, sigmoid, color=SKY, linewidth=2.5, label="sigmoid")
    right.plot(x, hard, color=VERMILION, linewidth=1.2, label="h")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("x", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=8)
    return figure


def channel_shuffle() -> Figure:
    """Three groups of channels through two grouped convolutions, without and with a shuffle between them."""
    figure, axes = canvas(WIDTH, 3.2)
    for left, shuffled in ((0.3, False), (5.0, True)):
        _grouped(axes, left, shuffled)
    return figure


def _grouped(axes: Axes, left: float, shuffled: bool) -> None:
    colors = [lighter(color, 0.45) for color in (BLUE, ORANGE, GREEN)]
    cell, gap, group = 0.28, 0.16, 4
    words = partial(axes.text, ha="center", va="center", fontsize=8)

    def x(place: int) -> float:
        return left + place * cell + place // group * gap

    def row(y: float, kinds: Sequence[int]) -> None:
        for place, kind in enumerate(kinds):
            grid(axes, x(place), y, [[colors[kind]]], cell=cell)

    def convolution(y: float, name: str) -> None:
        for first in range(0, 12, group):
            start, end = x(first), x(first + group - 1) + cell
            shape = [(start, y), (end, y), (end, y - 0.32), (start, y - 0.32)]
            axes.add_patch(Polygon(shape, facecolor="#EEEEEE", edgecolor="#BBBBBB", linewidth=0.8))
            words((start + end) / 2, y - 0.16, name)

    middle = (x(0) + x(11) + cell) / 2
    words(middle, 3.1, "with a shuffle" if shuffled else "without", fontweight="bold")
    ordered = [place // group for place in range(12)]
    row(2.9, ordered)
    convolution(2.55, "grouped 1×1")
    row(2.16, ordered)
    order = [int(i) for i in np.arange(12).reshape(3, 4).T.ravel()] if shuffled else list(range(12))
    for place, source in enumerate(order):
        color = lighter((BLUE, ORANGE, GREEN)[source // group], 0.1)
        axes.plot([x(source) + cell / 2, x(place) + cell / 2], [1.84, 1.3], color=color, linewidth=1.2)
    row(1.26, [ordered[source] for source in order])
    convolution(0.91, "grouped 1×1")
    for first in range(0, 12, group):
        seen = sorted({ordered[source] for source in order[first : first + group]})
        for place in range(first, first + group):
            for part, kind in enumerate(seen):
                high = cell / len(seen)
                corner = [(x(place), 0.24 + part * high), (x(place) + cell, 0.24 + part * high)]
                shape = [*corner, (corner[1][0], corner[1][1] + high), (corner[0][0], corner[0][1] + high)]
                axes.add_patch(Polygon(shape, facecolor=colors[kind], linewidth=0))
            grid(axes, x(place), 0.24 + cell, [["none"]], cell=cell)


def shufflenet_units() -> Figure:
    """The units of both versions, with stride 1 and 2."""
    diagram = Diagram(WIDTH, 4.6)
    first = ["1×1, grouped", "shuffle", "3×3 depthwise", "1×1, grouped"]
    _unit(diagram, 0.7, "V1", first, end="+")
    _unit(
        diagram,
        2.65,
        "V1, stride 2",
        [*first[:2], "3×3 depthwise\n/2", first[3]],
        end="concat",
        side=["avg pool 3×3\n/2"],
    )
    second = ["1×1", "3×3 depthwise", "1×1"]
    _unit(diagram, 5.35, "V2", second, start="split", end="concat", after="shuffle")
    wide = ["1×1", "3×3 depthwise\n/2", "1×1"]
    _unit(diagram, 7.2, "V2, stride 2", wide, end="concat", after="shuffle", side=["3×3 depthwise\n/2", "1×1"])
    return diagram.figure


def _unit(
    diagram: Diagram,
    x: float,
    title: str,
    layers: list[str],
    *,
    end: str,
    start: str = "",
    after: str = "ReLU",
    side: Sequence[str] = (),
) -> None:
    """A branch, what is beside it, and how they come together."""
    high, width, right = 0.36, 0.98, x + (1.1 if side else 0.75)

    def name(part: object) -> str:
        return f"{title} {part}"

    diagram.text(x, 4.5, title, bold=True)
    diagram.box(name("in"), x, 4.15, start or "x", kind="join" if start else "other", width=0.7, height=0.26)
    ys = np.linspace(3.5, 1.55, len(layers))
    before = name("in")
    for index, (text, y) in enumerate(zip(layers, ys, strict=True)):
        kind = "depthwise" if "depthwise" in text else "join" if text == "shuffle" else "conv"
        diagram.box(name(index), x, float(y), text, kind=kind, width=width, height=high)
        diagram.arrow(before, name(index))
        before = name(index)
    if end == "+":
        diagram.sign(name("end"), x, 0.95, "+")
    else:
        diagram.box(name("end"), x, 0.95, end, kind="join", width=0.8, height=0.28)
    diagram.arrow(before, name("end"))
    if side:
        axes, style = diagram.axes, {"color": BLACK, "linewidth": 1, "zorder": 1}
        middle = np.linspace(3.0, 2.0, len(side)) if len(side) > 1 else np.asarray([2.5])
        axes.plot([x + 0.35, right, right], [4.15, 4.15, 4.0], **style)
        _arrow(axes, (right, 4.0), (right, middle[0] + high / 2))
        for index, (text, y) in enumerate(zip(side, middle, strict=True)):
            kind = "depthwise" if "depthwise" in text else "pool" if "pool" in text else "conv"
            diagram.box(name(f"side {index}"), right, float(y), text, kind=kind, width=width, height=high)
            if index:
                diagram.arrow(name(f"side {index - 1}"), name(f"side {index}"))
        axes.plot([right, right], [middle[-1] - high / 2, 0.95], **style)
        _arrow(axes, (right, 0.95), (x + 0.4, 0.95))
    else:
        diagram.arrow(name("in"), name("end"), via=right)
    diagram.box(name("after"), x, 0.35, after, kind="join" if after == "shuffle" else "other", width=0.8, height=0.28)
    diagram.arrow(name("end"), name("after"))


FIGURES = {
    "depthwise_separable.svg": depthwise_separable,
    "mobilenet_v1.svg": partial(architecture_of, "mobilenet_v1", {r"blocks\.\d\.\d+": "separable"}),
    "inverted_residual.svg": inverted_residual,
    "relu_spiral.png": relu_spiral,
    "hard_swish.svg": hard_swish,
    "mobilenet_v2.svg": partial(
        architecture_of, "mobilenet_v2", {r"features\.([1-9]|1[0-7])\.": "inverted\nresidual"}, rows=2
    ),
    "mobilenet_v3_large.svg": partial(
        architecture_of, "mobilenet_v3_large", {r"features\.([1-9]|1[0-5])\.": "{kernel}\ninverted\nresidual"}, rows=2
    ),
    "channel_shuffle.svg": channel_shuffle,
    "shufflenet_units.svg": shufflenet_units,
    "shufflenet_v1_g3.svg": partial(architecture_of, "shufflenet_v1_g3", {r"features\.stage\d\.unit\d+": "unit"}),
    "shufflenet_v2_x1_0.svg": partial(architecture_of, "shufflenet_v2_x1_0", {r"stage\d\.\d+": "unit"}),
}
