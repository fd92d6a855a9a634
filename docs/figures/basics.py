"""The figures of the chapter on basics."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.figures.draw import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    WIDTH,
    canvas,
    grid,
    lighter,
)
from flaxcnn import optim
from flaxcnn.layers import Conv, max_pool

_TEXT = 9


def connections() -> Figure:
    """Seven inputs and five outputs: all connected, neighbours connected, neighbours connected with shared weights."""
    figure, axes = canvas(WIDTH, 1.85)
    shared = (BLUE, VERMILION, GREEN)
    panels: list[tuple[str, Callable[[int, int], str | None]]] = [
        ("fully connected\n7 · 5 = 35 weights", lambda i, o: GREY),
        ("local\n3 · 5 = 15 weights", lambda i, o: GREY if 0 <= i - o < 3 else None),
        ("convolution\n3 weights", lambda i, o: shared[i - o] if 0 <= i - o < 3 else None),
    ]
    for number, (title, color) in enumerate(panels):
        left = 0.3 + number * WIDTH / 3
        inputs = [(left + 0.4 * i, 0.2) for i in range(7)]
        outputs = [(left + 0.4 * (o + 1), 1.15) for o in range(5)]
        for i, (x1, y1) in enumerate(inputs):
            for o, (x2, y2) in enumerate(outputs):
                if edge := color(i, o):
                    axes.plot([x1, x2], [y1, y2], color=edge, linewidth=0.9 if edge == GREY else 1.6, zorder=1)
        for places in (inputs, outputs):
            axes.plot(*zip(*places, strict=True), "o", markersize=10, color="white", markeredgecolor=BLACK, zorder=2)
        axes.text(left + 1.2, 1.4, title, ha="center", va="bottom", fontsize=_TEXT, linespacing=1.4)
    return figure


def convolution() -> Figure:
    """A 3x3 kernel that finds a vertical edge, at stride 1 without padding; and a 2x2 max pool at stride 2."""
    image = np.array([[0, 0, 0, 9, 9, 9]] * 3 + [[0, 0, 0, 0, 9, 9]] * 3)
    kernel = np.array([[-1, 0, 1]] * 3)
    conv = Conv(1, 3, use_bias=False)
    found = conv.apply(
        {"params": {"kernel": kernel[:, :, None, None] * 1.0}}, jnp.asarray(image * 1.0)[None, :, :, None]
    )
    found = np.asarray(found)[0, :, :, 0].astype(int)
    pooled = np.asarray(max_pool(jnp.asarray(found)[None, :, :, None] * 1.0, window=2))[0, :, :, 0].astype(int)

    figure, axes = canvas(WIDTH, 2.65)
    cell, top = 0.32, 2.2
    _matrix(axes, 0.1, top, image, cell, "6×6", window=(0, 1, 3, 3), color=BLUE)
    axes.text(2.26, 1.24, "∗", ha="center", va="center", fontsize=16)
    _matrix(axes, 2.5, 1.72, kernel, cell, "3×3", window=(0, 0, 3, 3), color=BLUE)
    axes.text(3.72, 1.24, "=", ha="center", va="center", fontsize=16)
    _matrix(axes, 3.98, 1.88, found, cell, "4×4", window=(0, 1, 1, 1), color=BLUE)
    _matrix(axes, 6.1, 1.88, found, cell, "4×4", window=(0, 0, 2, 2), color=ORANGE)
    axes.annotate("", (8.1, 1.24), (7.5, 1.24), arrowprops={"arrowstyle": "-|>", "color": BLACK})
    axes.text(7.78, 1.36, "max", ha="center", fontsize=_TEXT)
    _matrix(axes, 8.22, 1.56, pooled, cell, "2×2", window=(0, 0, 1, 1), color=ORANGE)
    axes.text(2.6, 2.5, "convolution 3×3, stride 1", ha="center", fontsize=_TEXT)
    axes.text(7.5, 2.5, "max pooling 2×2, stride 2", ha="center", fontsize=_TEXT)
    return figure


def _matrix(
    axes: Axes, x: float, y: float, values: np.ndarray, cell: float, size: str, *, window: tuple[int, ...], color: str
) -> None:
    """Numbers in a grid, of which those in a window (first row, first column, rows, columns) are marked."""
    row, column, high, wide = window
    inside = np.zeros(values.shape, bool)
    inside[row : row + high, column : column + wide] = True
    colors = [[lighter(color, 0.7) if marked else "white" for marked in line] for line in inside]
    texts = [[f"{value}".replace("-", "−") for value in line] for line in values]
    grid(axes, x, y, colors, cell=cell, texts=texts, edge=GREY)
    middle = x + values.shape[1] * cell / 2
    axes.text(middle, y - values.shape[0] * cell - 0.08, size, ha="center", va="top", fontsize=_TEXT)


def activations() -> Figure:
    """Activation functions and their derivatives."""
    shown = {
        "sigmoid": (jax.nn.sigmoid, VERMILION, "-"),
        "tanh": (jnp.tanh, GREEN, "--"),
        "ReLU": (jax.nn.relu, BLUE, "-"),
        "leaky ReLU (0.1)": (lambda x: jax.nn.leaky_relu(x, 0.1), SKY, "--"),
        "hard-swish": (jax.nn.hard_swish, PINK, "-."),
    }
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = jnp.linspace(-6.0, 6.0, 1202)  # an even number: none falls on the kink at 0
    for name, (function, color, style) in shown.items():
        # Rounded: what is drawn of a curve depends on the last digits, which are the processor's.
        y, slope = (np.round(values, 4) for values in (function(x), jax.vmap(jax.grad(function))(x)))
        left.plot(x, y, style, color=color, label=name, linewidth=1.6)
        right.plot(x, slope, style, color=color, linewidth=1.6)
    left.set(ylim=(-1.3, 3), title="$f(x)$")
    right.set(ylim=(-0.6, 1.6), title="$f'(x)$")
    left.legend(frameon=False, fontsize=_TEXT, loc="upper left")
    for axes in (left, right):
        axes.set(xlim=(-6, 6), xlabel="$x$")
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.axvline(0, color=GREY, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_TEXT - 1)
    return figure


START = (-8.0, 2.0)
OPTIMIZERS = {
    "SGD": (optim.sgd(0.9), GREY),
    "momentum": (optim.sgd(0.1, momentum=0.9), BLUE),
    "Adagrad": (optim.adagrad(1.5), ORANGE),
    "RMSProp": (optim.rmsprop(0.3, alpha=0.9), GREEN),
    "Adam": (optim.adam(0.5), VERMILION),
}
"""What walks down the valley, and its colour."""


def valley(point: jax.Array) -> jax.Array:
    """A valley twenty times as steep across as along: x^2 / 20 + y^2."""
    return point[0] ** 2 / 20 + point[1] ** 2


def path(optimizer: optax.GradientTransformation, steps: int = 40) -> np.ndarray:
    """The points (steps + 1, 2) that an optimiser visits from `START`."""

    def update(carry: tuple[jax.Array, optax.OptState], _: None) -> tuple[tuple[jax.Array, optax.OptState], jax.Array]:
        point, state = carry
        updates, state = optimizer.update(jax.grad(valley)(point), state, point)
        point = point + jnp.asarray(updates)
        return (point, state), point

    start = jnp.asarray(START)
    _, points = jax.lax.scan(update, (start, optimizer.init(start)), length=steps)
    return np.concatenate([np.asarray(start)[None], points])


def optimizer_paths() -> Figure:
    """The first steps of five optimisers on the same valley, each by itself, and how the loss falls."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    places = np.ravel(figure.subplots(2, 3))
    x, y = np.meshgrid(np.linspace(-9, 4, 40), np.linspace(-2.6, 2.6, 25))
    heights = valley(jnp.asarray((x, y)))
    losses = places[-1]
    for axes, (name, (optimizer, color)) in zip(places, OPTIMIZERS.items(), strict=False):
        points = path(optimizer)
        axes.contour(x, y, heights, levels=np.geomspace(0.05, 8, 6), colors="#cccccc", linewidths=0.7)
        axes.plot(*points.T, "o-", color=color, markersize=2.5, linewidth=1.2, clip_on=True)
        axes.plot(0, 0, "+", color=BLACK, markersize=9)
        axes.set(xlim=(-9, 4), ylim=(-2.6, 2.6))
        axes.set_title(name, fontsize=_TEXT + 1)
        losses.semilogy(valley(jnp.asarray(points.T)), color=color, label=name, linewidth=1.4)
    losses.set(xlim=(0, 40), ylim=(1e-4, 10))
    losses.set_title("loss by step", fontsize=_TEXT + 1)
    losses.legend(frameon=False, fontsize=_TEXT - 2, loc="lower left")
    losses.spines[["top", "right"]].set_visible(False)
    for axes in places:
        axes.tick_params(labelsize=_TEXT - 2)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "connections.svg": connections,
    "convolution.svg": convolution,
    "activations.svg": activations,
    "optimizer_paths.svg": optimizer_paths,
}
