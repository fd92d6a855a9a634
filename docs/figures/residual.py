"""Figures of the chapters on ResNet and ResNeXt."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from docs.figures.draw import Diagram, architecture_of

_BLOCK = r"layer\d\.\d+"


def resnet_blocks() -> Figure:
    """A basic block and a bottleneck."""
    diagram = Diagram(6.4, 3.5)
    _chain(diagram, 1.5, "basic block", "64", ["3×3, 64", "3×3, 64"])
    _chain(diagram, 4.7, "bottleneck", "256", ["1×1, 64", "3×3, 64", "1×1, 256"])
    return diagram.figure


def resnext_blocks() -> Figure:
    """The bottlenecks of ResNet-50 and ResNeXt-50."""
    diagram = Diagram(6.4, 3.5)
    _chain(diagram, 1.5, "ResNet-50", "256", ["1×1, 64", "3×3, 64", "1×1, 256"])
    _chain(diagram, 4.7, "ResNeXt-50 32×4d", "256", ["1×1, 128", "3×3, 128\n32 groups", "1×1, 256"])
    return diagram.figure


def _chain(diagram: Diagram, x: float, title: str, channels: str, convolutions: list[str]) -> None:
    """Convolutions below one another, and a shortcut around them."""
    top, bottom = 3.1, 0.7
    diagram.text(x, 3.4, title, bold=True)
    diagram.box(f"{title} in", x, top, f"x: {channels}", kind="other", width=0.9, height=0.28)
    diagram.sign(f"{title} sum", x, bottom, "+")
    diagram.box(f"{title} out", x, 0.2, f"y: {channels}", kind="other", width=0.9, height=0.28)
    step = (top - bottom) / (len(convolutions) + 1)
    before = f"{title} in"
    for index, text in enumerate(convolutions):
        name = f"{title} {index}"
        diagram.box(name, x, top - step * (index + 1), text, height=0.36)
        diagram.arrow(before, name, text="BN, ReLU" if index else "")
        before = name
    diagram.arrow(before, f"{title} sum", text="BN")
    diagram.arrow(f"{title} in", f"{title} sum", via=x + 1.15)
    diagram.arrow(f"{title} sum", f"{title} out", text="ReLU")


def resnext_forms() -> Figure:
    """Sum, early concatenation and grouped convolution."""
    diagram = Diagram(9, 3.7)
    top, rows = 3.15, (2.45, 1.8, 1.15)
    for number, (left, title) in enumerate(((0.1, "a"), (3.55, "b"), (7.0, "c"))):
        form = "abc"[number]
        middle = left + (1.6 if form != "c" else 0.95)
        diagram.text(middle, 3.55, title, bold=True)
        if form != "c":
            diagram.text(middle - 0.75, top, "32 paths")
        diagram.box(f"{form} in", middle, top, "256", kind="other", width=0.8, height=0.28)
        if form == "c":
            texts = ("1×1, 256 → 128", "3×3, 128 → 128\n32 groups", "1×1, 128 → 256")
            before = "c in"
            for row, text in zip(rows, texts, strict=True):
                diagram.box(f"c {row}", middle, row, text, width=1.35, height=0.38)
                diagram.arrow(before, f"c {row}")
                before = f"c {row}"
            last = [before]
        else:
            last = _paths(diagram, form, middle, rows)
        diagram.sign(f"{form} sum", middle, 0.3, "+")
        for name in last:
            diagram.arrow(name, f"{form} sum")
        side = 1.75 if form != "c" else 0.85
        diagram.arrow(f"{form} in", f"{form} sum", via=middle + side)
    return diagram.figure


def _paths(diagram: Diagram, form: str, middle: float, rows: tuple[float, float, float]) -> list[str]:
    """Three of the 32 paths, and what their ends come together in."""
    ends = []
    for place, at in enumerate((-1.05, 0.0, 1.2)):
        x = middle + at
        texts = ["1×1, 256 → 4", "3×3, 4 → 4", "1×1, 4 → 256"][: 3 if form == "a" else 2]
        before = f"{form} in"
        for row, text in zip(rows, texts, strict=False):
            name = f"{form} {place} {row}"
            diagram.box(name, x, row, text, width=0.98, height=0.32)
            diagram.arrow(before, name)
            before = name
        ends.append(before)
    for row in rows[: 3 if form == "a" else 2]:
        diagram.text(middle + 0.6, row, "…")
    if form == "a":
        return ends
    diagram.box("concat", middle, 1.32, "concatenate: 128", kind="join", width=1.3, height=0.28)
    diagram.box("widen", middle, 0.86, "1×1, 128 → 256", width=1.3, height=0.3)
    for end in ends:
        diagram.arrow(end, "concat")
    diagram.arrow("concat", "widen")
    return ["widen"]


FIGURES = {
    "resnet_blocks.svg": resnet_blocks,
    "resnet18.svg": partial(architecture_of, "resnet18", {_BLOCK: "basic\nblock"}),
    "resnet50.svg": partial(architecture_of, "resnet50", {_BLOCK: "bottleneck"}),
    "resnext50_32x4d.svg": partial(architecture_of, "resnext50_32x4d", {_BLOCK: "bottleneck\n32 groups"}),
    "resnext_blocks.svg": resnext_blocks,
    "resnext_forms.svg": resnext_forms,
}
