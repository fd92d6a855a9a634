"""Plain and residual networks of growing depth on the embedded digits: what is lost by depth, and what shortcuts mend.

    python benchmarks/degradation.py [--picture degradation.svg]

All are a 3x3 convolution, so many more in pairs, with BatchNorm and ReLU, over the digits' own 8x8 pixels and 16
channels, global average pooling and a classifier; in a residual network a shortcut goes around every pair. They are
trained by the same batches, and the table holds the mean training loss and accuracy of the last epoch: of the training,
since what is asked is whether deeper networks can be optimised.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxcnn import optim
from flaxcnn.data import digits
from flaxcnn.layers import BatchNorm, Conv, Linear, global_avg_pool
from flaxcnn.layers.initializers import kaiming_fan_out
from flaxcnn.metrics import means
from flaxcnn.models import Classifier
from flaxcnn.schedules import cosine
from flaxcnn.train import create_state, make_train_step

BATCH_SIZE, LEARNING_RATE = 64, 0.05


class Chain(Classifier, kw_only=True):
    """Pairs of 3x3 convolutions.

    Attributes:
        depth: layers with weights, an even number.
        residual: whether a shortcut goes around every pair.
    """

    depth: int
    residual: bool
    width: int = 16
    image_size: int = 8
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes)."""
        conv = partial(Conv, self.width, 3, padding=1, use_bias=False, kernel_init=kaiming_fan_out)
        norm = partial(BatchNorm, use_running_average=not train)
        x = nn.relu(norm()(conv()(images)))
        for _ in range(self.depth // 2 - 1):
            y = nn.relu(norm()(conv()(x)))
            y = norm()(conv()(y))
            x = nn.relu(x + y if self.residual else y)
        return Linear(self.num_classes)(global_avg_pool(x))


def main() -> None:
    """Train, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 20, 56])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", type=Path, help="of the training loss, to write")
    options = parser.parse_args()
    curves = {}
    print("| network | depth | training loss | training accuracy |\n|---|--:|--:|--:|")
    for depth in options.depths:
        for residual in (False, True):
            epochs = train(Chain(depth=depth, residual=residual), options.epochs)
            curves[depth, residual] = [epoch["loss"] for epoch in epochs]
            kind, last = ("residual" if residual else "plain"), epochs[-1]
            print(f"| {kind} | {depth} | {last['loss']:.3f} | {last['top1']:.1%} |", flush=True)
    if options.picture:
        draw(curves, options.picture)


def train(model: Chain, epochs: int) -> list[dict[str, float]]:
    """The mean metrics of each epoch."""
    source = digits("train")
    images = np.repeat(source.images[..., None] / np.float32(127.5) - 1, 3, axis=-1)
    steps = len(source) // BATCH_SIZE
    optimizer = optim.sgd(cosine(LEARNING_RATE, epochs * steps), momentum=0.9, weight_decay=1e-4)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images[:1])
    state = create_state(model, optimizer, variables)
    step = jax.jit(make_train_step(model, optimizer), donate_argnums=0)
    history = []
    for epoch in range(epochs):
        sums: dict[str, Array] = {}
        for chosen in batches(len(source), steps, epoch):
            batch = {"image": jnp.asarray(images[chosen]), "label": jnp.asarray(source.labels[chosen])}
            state, metrics = step(state, batch)
            sums = {name: sums.get(name, 0) + value for name, value in metrics.items()}
        history.append(means({name: float(value) for name, value in sums.items() if name != "nonfinite"}))
    return history


def batches(count: int, steps: int, epoch: int) -> Iterator[np.ndarray]:
    """The images of each batch of an epoch, the same for all networks."""
    order = np.random.default_rng(epoch).permutation(count)
    yield from order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)


def draw(curves: dict[tuple[int, bool], list[float]], path: Path) -> None:
    """Training loss against epochs: plain networks dashed, residual ones drawn through."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    colors = dict(
        zip(sorted({depth for depth, _ in curves}), ("#56B4E9", "#E69F00", "#D55E00", "#222222"), strict=False)
    )
    for (depth, residual), losses in curves.items():
        style = "-" if residual else "--"
        label = f"{'residual' if residual else 'plain'}, {depth}"
        axes.plot(range(1, len(losses) + 1), losses, style, color=colors[depth], label=label)
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
