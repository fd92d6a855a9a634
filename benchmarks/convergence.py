"""Train LeNet and ResNet-18 to the end by flaxcnn and by a plain PyTorch loop, on real images, and compare.

    python benchmarks/convergence.py PICTURE.png [--seeds 5] [--json FILE]

The images are Fashion-MNIST's (`apt-get install dataset-fashion-mnist`), padded to 32x32 pixels, grey in all three
channels. For each seed, both begin with the weights that PyTorch initialised and see the same batches, in float32;
flaxcnn trains once more in bfloat16. Both networks train on a part of the images, so that all runs together take an
hour of one core; the accuracies are of all 10,000 test images. `--json` keeps every run as it ends, and the same
command leaves those out.

In float32 the two do not stay together step by step, and no two libraries could: a rounding that turns a ReLU the other
way grows. That they are the same computation is tested in float64; here it is that they arrive at the same place.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn import create_model, from_torch, optim, schedules
from flaxcnn.cli.huge_pages import start_again_with_huge_pages
from flaxcnn.data import fashion_mnist_splits
from flaxcnn.train import create_state, make_train_step

MEAN, STD = 0.286, 0.353
SGD: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
TEST_BATCH = 1000

Batch = tuple[np.ndarray, np.ndarray]
"""Normalised images (n, h, w, c) and labels (n,)."""
Run = dict[str, Any]
"""`losses` of every step and `top1` at the end."""


class Recipe(NamedTuple):
    """How a network is trained; the rate falls to 0 along half a cosine."""

    images: int
    epochs: int
    batch_size: int
    rate: float

    @property
    def steps(self) -> int:
        return self.epochs * (self.images // self.batch_size)


RECIPES = {"lenet": Recipe(20_000, 4, 64, 0.02), "resnet18": Recipe(6_000, 8, 64, 0.05)}


class Pictures(NamedTuple):
    """Images (n, h, w, c) as bytes, and labels (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def some(self, count: int) -> Pictures:
        """Some of them, always the same."""
        chosen = np.random.default_rng(0).permutation(len(self.labels))[:count]
        return Pictures(self.images[chosen], self.labels[chosen])

    def batches(self, recipe: Recipe, seed: int) -> Iterator[Batch]:
        """Shuffled in every epoch, half of them mirrored."""
        for epoch in range(recipe.epochs):
            random = np.random.default_rng((seed, epoch))
            order = random.permutation(len(self.labels))
            for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
                chosen = order[start : start + recipe.batch_size]
                images = self.images[chosen]
                mirrored = random.random(len(chosen)) < 0.5
                images[mirrored] = images[mirrored, :, ::-1]
                yield normalised(images), self.labels[chosen]


def normalised(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


def main() -> None:
    """Print each run's accuracy, then what they come to, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each")
    parser.add_argument("--json", type=Path, help="where to keep every run")
    options = parser.parse_args()
    start_again_with_huge_pages()
    runs: dict[str, dict[str, Run]] = {}
    if options.json and options.json.exists():
        runs = json.loads(options.json.read_text())
    train, test = (pictures(split) for split in ("train", "test"))
    for model in options.models:
        recipe, done = RECIPES[model], runs.setdefault(model, {})
        for seed in range(options.seeds):
            for trainer in options.trainers:
                name = f"{trainer} {seed}"
                if name not in done:
                    began = time.perf_counter()
                    weights = initial_weights(model, seed)
                    batches = train.some(recipe.images).batches(recipe, seed)
                    losses, logits = TRAINERS[trainer](model, recipe, weights, batches, normalised(test.images))
                    done[name] = {"losses": losses, "top1": float((logits.argmax(axis=1) == test.labels).mean())}
                    seconds = time.perf_counter() - began
                    print(f"{model} {name}: top-1 {done[name]['top1']:.2%}, {seconds:.0f} s", flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(runs))
    for model, done in runs.items():
        print(report(model, done))
    draw(runs, options.picture)


def pictures(split: str) -> Pictures:
    """All images of a split."""
    source = fashion_mnist_splits()[split]()
    images = np.stack([np.asarray(source[i]["image"].convert("RGB")) for i in range(len(source))])
    return Pictures(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), source.labels)


@cache
def torch_references() -> Callable[..., Any]:
    """The networks that the parity tests take for the references."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.references import torch_reference

    return torch_reference


def initial_weights(model: str, seed: int) -> dict[str, Any]:
    """A state dict as PyTorch initialises it."""
    import torch

    torch.manual_seed(seed)
    return torch_references()(model, num_classes=10).state_dict()


def train_torch(
    name: str, recipe: Recipe, weights: dict[str, Any], batches: Iterator[Batch], test: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """The plain loop; the losses of every step, and the test images' logits at the end."""
    import torch

    def nchw(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    model = torch_references()(name, num_classes=10)
    model.load_state_dict(weights)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), recipe.rate, **SGD)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(nchw(images)), torch.from_numpy(labels).long())
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    with torch.inference_mode():
        logits = [model(nchw(part)).numpy() for part in np.split(test, len(test) // TEST_BATCH)]
    return losses, np.concatenate(logits)


def train_flaxcnn(
    name: str,
    recipe: Recipe,
    weights: dict[str, Any],
    batches: Iterator[Batch],
    test: np.ndarray,
    dtype: Any = None,
) -> tuple[list[float], np.ndarray]:
    """The same with flaxcnn."""
    model, optimizer, step, predict = compiled(name, recipe, dtype)
    state = create_state(model, optimizer, from_torch(model, weights))
    sums = []
    for images, labels in batches:
        state, metrics = step(state, {"image": images, "label": labels})
        sums.append(metrics["loss"])
    logits = [predict(state.variables, part) for part in np.split(test, len(test) // TEST_BATCH)]
    return [float(each) / recipe.batch_size for each in sums], np.concatenate(logits)


@cache
def compiled(name: str, recipe: Recipe, dtype: Any) -> tuple[Any, ...]:
    """What all seeds share."""
    model = create_model(name, num_classes=10, dtype=dtype)
    optimizer = optim.sgd(schedules.cosine(recipe.rate, recipe.steps), **SGD)
    step = jax.jit(make_train_step(model, optimizer), donate_argnums=0)
    return model, optimizer, step, jax.jit(lambda variables, images: model.apply(variables, images, train=False))


def train_bfloat16(*arguments: Any) -> tuple[list[float], np.ndarray]:
    """flaxcnn in mixed precision: parameters and statistics stay float32."""
    return train_flaxcnn(*arguments, dtype=jnp.bfloat16)


TRAINERS: dict[str, Callable[..., tuple[list[float], np.ndarray]]] = {
    "flaxcnn": train_flaxcnn,
    "PyTorch": train_torch,
    "flaxcnn-bfloat16": train_bfloat16,
}


def of_trainer(done: dict[str, Run], trainer: str) -> list[Run]:
    return [run for name, run in done.items() if name.rsplit(" ", 1)[0] == trainer]


def report(model: str, done: dict[str, Run]) -> str:
    """Means and deviations over the seeds, in per cent."""
    lines, ours = [], [100 * run["top1"] for run in of_trainer(done, "flaxcnn")]
    for trainer in TRAINERS:
        top1 = [100 * run["top1"] for run in of_trainer(done, trainer)]
        if len(top1) > 1:
            line = f"{model:9} {trainer:17} {statistics.mean(top1):.2f} +- {statistics.stdev(top1):.2f} %"
            line += f" ({len(top1)} seeds: {', '.join(f'{each:.2f}' for each in top1)})"
            if trainer != "flaxcnn" and len(ours) == len(top1):
                apart = statistics.mean(ours) - statistics.mean(top1)
                line += (
                    f"; flaxcnn's mean is {apart:+.2f} from it, {abs(apart) / statistics.stdev(top1):.1f} deviations"
                )
            lines.append(line)
    return "\n".join(lines)


def draw(runs: dict[str, dict[str, Run]], path: Path) -> None:
    """Training losses against epochs: a line a seed, and their mean."""
    from matplotlib.figure import Figure

    # Okabe and Ito's blue, vermilion and green, and strokes of different length.
    styles = {"flaxcnn": ("#0072B2", "-"), "PyTorch": ("#D55E00", "--"), "flaxcnn-bfloat16": ("#009E73", ":")}
    figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
    for axes, (model, done) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        recipe = RECIPES[model]
        width = max(recipe.steps // 100, 1)
        for trainer, (colour, stroke) in styles.items():
            of_seeds = of_trainer(done, trainer)
            if not of_seeds:
                continue
            losses = np.array([run["losses"] for run in of_seeds])
            parts = losses[:, : losses.shape[1] // width * width].reshape(len(losses), -1, width).mean(axis=2)
            epochs = (np.arange(parts.shape[1]) + 0.5) * width * recipe.epochs / recipe.steps
            axes.plot(epochs, parts.T, color=colour, linewidth=0.5, alpha=0.35)
            top1 = [100 * run["top1"] for run in of_seeds]
            spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
            label = f"{trainer.replace('-', ', ')}: {statistics.mean(top1):.2f}{spread} % of the test images"
            axes.plot(epochs, parts.mean(axis=0), color=colour, linestyle=stroke, linewidth=1.8, label=label)
        axes.set(xlabel="epoch", ylabel="training loss (cross-entropy)", xlim=(0, recipe.epochs))
        axes.set_title(f"{model}, {recipe.images:,} images, batches of {recipe.batch_size}", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
