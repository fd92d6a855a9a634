"""What the guide's figures are drawn with: architectures, block diagrams and grids of pixels.

Every function draws on matplotlib's axes or returns a figure of its own; `save` writes it. A figure's texts are symbols
and names of layers, so that both languages of a page share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from flax.traverse_util import flatten_dict
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path as Outline

import flaxcnn
from flaxcnn.analysis import Layer, summarize
from flaxcnn.models import Classifier

IMAGES = Path(__file__).parents[1] / "images" / "guide"
WIDTH = 9.0
"""Of a figure as wide as the page, in inches; the text in it is 8 points high."""

# Okabe and Ito's colours, told apart by the colour-blind and in greyscale.
BLACK, BLUE, VERMILION, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"
PINK, SKY, ORANGE, GREY = "#CC79A7", "#56B4E9", "#E69F00", "#999999"
KINDS = {
    "image": GREY,
    "conv": BLUE,
    "depthwise": SKY,
    "pool": ORANGE,
    "linear": VERMILION,
    "block": GREEN,
    "join": PINK,
    "other": "#BBBBBB",
}
"""What each kind of box or slab is coloured."""

_TEXT = 8
# Only the fonts that come with Matplotlib: a system's DejaVu may be found first, and numbers its glyphs otherwise.
font_manager.fontManager.ttflist.clear()
for _font in sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")):
    font_manager.fontManager.addfont(_font)


def save(figure: Figure, name: str, folder: Path = IMAGES) -> Path:
    """Write a figure, with nothing in the file that differs from one run to the next.

    Args:
        figure: to write.
        name: of the file, `.svg` or `.png`.
        folder: to write it into.

    Returns:
        The file's path.
    """
    path = folder / name
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(path, dpi=120, metadata=metadata, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    return path


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure whose axes are invisible and measured in inches, y upwards."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


# --- architectures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A slab of an architecture: equal layers or blocks one behind the other."""

    label: str
    kind: str
    """One of `KINDS`."""
    output: tuple[int, ...]
    """(h, w, c), or (features,)."""
    count: int = 1


def stages(model: Classifier, blocks: Mapping[str, str] | None = None, *, image_size: int | None = None) -> list[Stage]:
    """A network's stages, from its summary: the image, then convolutions, blocks, pools and fully connected layers.

    Neighbours with the same label and the same output are one stage, which counts them; normalisation is left out.

    Args:
        model: from `create_model`.
        blocks: regular expression -> label. Consecutive layers whose names begin with the same match are one block, so
            that {r"layer\\d\\.\\d+": "bottleneck"} makes one of each of ResNet's. In a label, `{kernel}` stands for the
            largest kernel in the block, such as 3×3, and \\1 for the expression's first group.
        image_size: height and width in pixels; None for the model's own.

    Returns:
        The stages, the image first.
    """
    summary = summarize(model, image_size=image_size)
    outputs = _outputs(model, summary.image_size)
    parts: list[tuple[re.Match[str] | None, list[Layer]]] = []
    for layer in summary.layers:
        if layer.kind == "BatchNorm":
            continue
        match = next((found for pattern in blocks or () if (found := re.match(pattern, layer.name))), None)
        before = parts[-1][0] if parts else None
        if match and before and match.group() == before.group():
            parts[-1][1].append(layer)
        else:
            parts.append((match, [layer]))
    found = [Stage("image", "image", (summary.image_size, summary.image_size, 3))]
    for match, layers in parts:
        if match is None:
            stage = _layer_stage(layers[0])
        else:
            label = match.expand((blocks or {})[match.re.pattern]).replace("{kernel}", _largest_kernel(layers))
            stage = Stage(label, "block", outputs[match.group().rstrip(".")])
        if replace(found[-1], count=1) == stage:
            found[-1] = replace(found[-1], count=found[-1].count + 1)
        else:
            found.append(stage)
    return found


def _outputs(model: Classifier, size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each module's output for one image, by its path: a block's sum or concatenation is no layer's."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    run = partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, state = jax.eval_shape(run, variables, images)
    flat: Any = flatten_dict(state["intermediates"], sep=".")
    return {path.removesuffix(".__call__"): calls[0].shape[1:] for path, calls in flat.items()}


def _layer_stage(layer: Layer) -> Stage:
    if layer.kind == "Linear":
        return Stage("linear", "linear", layer.output)
    if layer.kind == "global_pool":
        return Stage("global\navg pool", "pool", layer.output)
    assert layer.kernel and layer.stride
    name = layer.kind.replace("_", " ").lower()
    step = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
    return Stage(f"{name}\n{_square(layer.kernel)}{step}", name.split()[-1], layer.output)


def _largest_kernel(layers: Sequence[Layer]) -> str:
    """Of a block's convolutions, but for those of a squeeze-and-excitation, whose maps are of one pixel."""
    return _square(max(layer.kernel for layer in layers if layer.kernel and len(layer.output) == 3))


def _square(kernel: tuple[int, int]) -> str:
    return f"{kernel[0]}×{kernel[1]}"


def architecture(rows: Sequence[Sequence[Stage]], heads: Mapping[str, str] | None = None) -> Figure:
    """A network as slabs: the larger the map, the taller, and the more channels, the thicker; both by logarithms.

    Over a slab stands what computes it, with how many times it does; below it, its output.

    Args:
        rows: the stages, perhaps in several rows that are read one after the other; a row holds up to about ten.
        heads: label of a stage -> what stands in a dashed box above it: a part that is there in training only.

    Returns:
        A figure as wide as the page.
    """
    high = 1.9
    figure, axes = canvas(WIDTH, high * len(rows))
    # All rows share the width of a place, so that slabs of one thickness have as many channels.
    place = WIDTH / max(map(len, rows))
    side = max(stage.output[0] for row in rows for stage in row if len(stage.output) == 3)
    for number, row in enumerate(rows):
        floor = high * (len(rows) - 1 - number) + 0.42
        for index, stage in enumerate(row):
            top = _slab(axes, stage, place * (index + 0.5), floor, place, side)
            if heads and stage.label in heads:
                _head(axes, heads[stage.label], place * (index + 0.5), top)
        if number + 1 < len(rows):
            _line(axes, [(place * len(row) - 0.2, floor + 0.5), (place * len(row) - 0.02, floor + 0.5)])
        for index in range(1, len(row)):
            at = place * index
            _line(axes, [(at - 0.09, floor + 0.1), (at + 0.09, floor + 0.1)])
    return figure


def architecture_of(
    name: str,
    blocks: Mapping[str, str] | None = None,
    *,
    image_size: int | None = None,
    rows: int = 1,
    heads: Mapping[str, str] | None = None,
    **options: Any,
) -> Figure:
    """`architecture` of a registered model.

    Args:
        name: from `flaxcnn.list_models()`.
        blocks: see `stages`.
        image_size: see `stages`.
        rows: to spread the stages over.
        heads: see `architecture`.
        options: for `create_model`.
    """
    every = stages(flaxcnn.create_model(name, **options), blocks, image_size=image_size)
    length = -(-len(every) // rows)
    return architecture([every[i : i + length] for i in range(0, len(every), length)], heads)


def _slab(axes: Axes, stage: Stage, x: float, floor: float, place: float, side: int) -> float:
    """A cuboid in the middle of its place; of features without places, a bar. Returns the upper end of its label."""
    color = KINDS[stage.kind]
    *place_shape, channels = stage.output
    tall = (
        0.22 + 0.62 * np.log2(place_shape[0] + 1) / np.log2(side + 1) if place_shape else 0.3 + 0.05 * np.log2(channels)
    )
    thick = place * (0.05 + 0.028 * np.log2(channels)) if place_shape else 0.12 * place
    deep = 0.3 * tall if place_shape else 0.0
    deep = min(deep, 0.26 * place)
    left = x - (thick + deep) / 2
    front = [(left, floor), (left + thick, floor), (left + thick, floor + tall), (left, floor + tall)]
    lift = 0.6 * deep
    top = [front[3], front[2], (left + thick + deep, floor + tall + lift), (left + deep, floor + tall + lift)]
    flank = [front[1], (left + thick + deep, floor + lift), (left + thick + deep, floor + tall + lift), front[2]]
    for shape, tone in ((front, 0.25), (top, 0.55), (flank, 0.0)):
        axes.add_patch(Polygon(shape, facecolor=lighter(color, tone), edgecolor="white", linewidth=0.6, zorder=2))
    times = f"\n× {stage.count}" if stage.count > 1 else ""
    axes.text(x, floor + tall + lift + 0.06, stage.label + times, ha="center", va="bottom", fontsize=_TEXT)
    size = "×".join(map(str, place_shape)) + f"\n× {channels}" if place_shape else str(channels)
    axes.text(x, floor - 0.08, size, ha="center", va="top", fontsize=_TEXT - 1, color="#555555")
    return floor + tall + lift + 0.06 + 0.14 * (stage.label + times).count("\n") + 0.14


def _head(axes: Axes, text: str, x: float, y: float) -> None:
    """A dashed box above a slab's label, and a dashed arrow to it."""
    width, height, color = 0.56, 0.22, KINDS["linear"]
    _line(axes, [(x, y + 0.01), (x, y + 0.2)], linestyle="--")
    axes.add_patch(
        Rectangle((x - width / 2, y + 0.2), width, height, facecolor=lighter(color, 0.85), edgecolor=color, ls="--")
    )
    axes.text(x, y + 0.2 + height / 2, text, ha="center", va="center", fontsize=_TEXT)


def lighter(color: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with so much white, from 0 to 1."""
    red, green, blue = to_rgb(color)
    return (red + (1 - red) * share, green + (1 - green) * share, blue + (1 - blue) * share)


# --- block diagrams --------------------------------------------------------------------------------------------------


class Diagram:
    """Boxes and arrows: a block's inside.

        diagram = Diagram(3, 3)
        diagram.box("in", 1.5, 2.7, "256", kind="other")
        diagram.box("conv", 1.5, 1.8, "conv 3×3, 256")
        diagram.sign("sum", 1.5, 0.9, "+")
        diagram.arrow("in", "conv")
        diagram.arrow("conv", "sum", text="ReLU")
        diagram.arrow("in", "sum", via=2.6)      # around, at the right
        save(diagram.figure, "block.svg")

    Attributes:
        figure: what is drawn on.
        axes: its axes, in inches, y upwards, to add what else is wanted.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure, self.axes = canvas(width, height)
        self._places: dict[str, tuple[float, float, float, float]] = {}  # the middle, and half the extents

    def box(
        self, name: str, x: float, y: float, text: str, *, kind: str = "conv", width: float = 1.3, height: float = 0.34
    ) -> None:
        """A layer.

        Args:
            name: for `arrow`.
            x: of its middle, in inches.
            y: of its middle, in inches.
            text: in it; lines end in a line feed.
            kind: one of `KINDS`.
            width: in inches.
            height: in inches.
        """
        color = KINDS[kind]
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=lighter(color, 0.75),
                edgecolor=color,
                linewidth=1.2,
                zorder=2,
            )
        )
        self.axes.text(x, y, text, ha="center", va="center", fontsize=_TEXT, zorder=3)
        self._places[name] = (x, y, width / 2, height / 2)

    def sign(self, name: str, x: float, y: float, text: str) -> None:
        """A sum or the like: one character in a circle; the arguments are `box`'s."""
        self.axes.plot(x, y, "o", markersize=15, markerfacecolor="white", markeredgecolor=BLACK, zorder=2)
        self.axes.text(x, y, text, ha="center", va="center_baseline", fontsize=11, zorder=3)
        self._places[name] = (x, y, 0.105, 0.105)

    def text(self, x: float, y: float, text: str, *, bold: bool = False, align: str = "center") -> None:
        """Words by themselves, such as a title; `align` is left, center or right."""
        self.axes.text(x, y, text, ha=align, va="center", fontsize=_TEXT, fontweight="bold" if bold else "normal")

    def arrow(
        self, start: str, end: str, *, text: str = "", via: float | None = None, bend: float | None = None
    ) -> None:
        """From one box to another, down or up: straight, or by way of a level line.

        Args:
            start: name of a box.
            end: name of a box.
            text: beside it.
            via: an x to go around by, from a side of the start to that side of the end.
            bend: the y of the level line; halfway if None.
        """
        (x1, y1, w1, h1), (x2, y2, w2, h2) = self._places[start], self._places[end]
        if via is not None:
            side = 1 if via > x1 else -1
            points = [(x1 + side * w1, y1), (via, y1), (via, y2), (x2 + side * w2, y2)]
            place, align = (via + 0.06 * side, (y1 + y2) / 2), "left" if side > 0 else "right"
        else:
            down = 1 if y1 > y2 else -1
            first, last = y1 - down * h1, y2 + down * h2
            middle = (first + last) / 2 if bend is None else bend
            level = [] if abs(x1 - x2) < 1e-9 else [(x1, middle), (x2, middle)]
            points = [(x1, first), *level, (x2, last)]
            place, align = (x2 + 0.07, middle), "left"
        _line(self.axes, points)
        if text:
            self.axes.text(*place, text, ha=align, va="center", fontsize=_TEXT, color="#555555")


def _line(axes: Axes, points: Sequence[tuple[float, float]], linestyle: str = "-") -> None:
    """A line through the points that ends in a head."""
    codes = [Outline.MOVETO, *[Outline.LINETO] * (len(points) - 1)]
    axes.add_patch(
        FancyArrowPatch(
            path=Outline(np.asarray(points), codes),
            arrowstyle="-|>,head_length=3.5,head_width=1.8",
            linewidth=1.0,
            linestyle=linestyle,
            color=BLACK,
            joinstyle="round",
            zorder=1,
        )
    )


# --- grids of pixels -------------------------------------------------------------------------------------------------


def grid(
    axes: Axes,
    x: float,
    y: float,
    colors: Sequence[Sequence[Any]],
    *,
    cell: float = 0.25,
    texts: Sequence[Sequence[Any]] | None = None,
    edge: str = BLACK,
) -> None:
    """A grid of pixels or channels.

    Args:
        axes: of a `canvas` or a `Diagram`.
        x: of its left edge, in inches.
        y: of its upper edge, in inches.
        colors: a row a list, a cell a colour that matplotlib knows.
        cell: side of a cell, in inches.
        texts: what stands in the cells.
        edge: colour of the lines.
    """
    for row, line in enumerate(colors):
        for column, color in enumerate(line):
            corner = (x + column * cell, y - (row + 1) * cell)
            axes.add_patch(Rectangle(corner, cell, cell, facecolor=color, edgecolor=edge, linewidth=0.6, zorder=2))
            if texts is not None:
                middle = (corner[0] + cell / 2, corner[1] + cell / 2)
                axes.text(*middle, str(texts[row][column]), ha="center", va="center_baseline", fontsize=_TEXT, zorder=3)
