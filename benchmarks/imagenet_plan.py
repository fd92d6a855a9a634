"""What training on ImageNet takes on 1, 8 and 256 devices, as Markdown tables.

    python benchmarks/imagenet_plan.py [--tflops 60] [--bandwidth 2] [--images-per-core 460]

Counted or measured here: operations, from XLA's cost analysis of the training step; the state's bytes; the activations
that wait for the backward pass, before the compiler fuses any away; a checkpoint's bytes on disk, its numbers random,
for zeros would be compressed. Assumed: how many operations a second a device sustains (`--tflops`), and how many
bytes a second its memory moves (`--bandwidth`). Measured by `benchmarks/loader.py`: how many images a second a core of
a host decodes and augments (`--images-per-core`). The data set is 1,281,167 images, in an archive of 137.8 GB.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn import create_model, optim
from flaxcnn.layers import conv_lowering
from flaxcnn.models import Classifier
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.checkpoint import Checkpoints

IMAGES, ARCHIVE_BYTES = 1_281_167, 137.8e9
CLASSES = 1000
DEVICES = (1, 8, 256)


class Plan(NamedTuple):
    """A network's recipe, by number of devices."""

    model: str
    optimizer: Any
    epochs: int
    batch_sizes: tuple[int, int, int]


# Batches beyond 8,192 images cost accuracy, so that 256 devices get fewer images each.
PLANS = (
    Plan("resnet50", optim.sgd(0.1, momentum=0.9, weight_decay=1e-4), 90, (256, 2048, 8192)),
    Plan("efficientnet_b0", optim.rmsprop(0.256, alpha=0.9, momentum=0.9, weight_decay=1e-5), 350, (256, 2048, 8192)),
)


class Facts(NamedTuple):
    """Of a network in training, in numbers and bytes."""

    parameters: int
    gradient_bytes: int
    state_bytes: int
    flops_an_image: float
    kept_bytes_an_image: dict[str, float]
    checkpoint_bytes: int


def main() -> None:
    """Print a Markdown table of what is known, and one a network of what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=60, help="that a device is assumed to sustain")
    parser.add_argument("--bandwidth", type=float, default=2, help="TB/s of a device's memory, assumed")
    parser.add_argument("--images-per-core", type=float, default=460, help="that a core decodes and augments a second")
    options = parser.parse_args()
    known = {plan.model: find_facts(plan) for plan in PLANS}
    print(
        "| | parameters | state, MB | checkpoint, MB | GFLOP an image | activations, MB an image: float32, bfloat16 |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for name, facts in known.items():
        kept = ", ".join(f"{each / 1e6:.0f}" for each in facts.kept_bytes_an_image.values())
        print(
            f"| {name} | {facts.parameters:,} | {facts.state_bytes / 1e6:.0f} | {facts.checkpoint_bytes / 1e6:.0f} "
            f"| {facts.flops_an_image / 1e9:.1f} | {kept} |"
        )
    for plan in PLANS:
        assumed = f"{options.tflops:g} TFLOP/s, {options.bandwidth:g} TB/s"
        print(f"\n| {plan.model}, {plan.epochs} epochs, {assumed} | {' | '.join(map(str, DEVICES))} |")
        print("|---" + "|--:" * len(DEVICES) + "|")
        columns = [
            follows(plan, known[plan.model], devices, batch_size, options)
            for devices, batch_size in zip(DEVICES, plan.batch_sizes, strict=True)
        ]
        for row in columns[0]:
            print(f"| {row} | " + " | ".join(column[row] for column in columns) + " |")


def find_facts(plan: Plan) -> Facts:
    """Trace, count and save."""
    model = create_model(plan.model, num_classes=CLASSES, dtype=jnp.bfloat16)
    batch = batch_of(model, 8)

    def make_state() -> Any:
        images = jnp.zeros(batch_of(model, 1)["image"].shape)
        return create_state(model, plan.optimizer, model.init(jax.random.key(0), images, train=False))

    state = jax.eval_shape(make_state)
    # As on accelerators, whose convolutions are XLA's own.
    with conv_lowering("xla"):
        lowered = jax.jit(make_train_step(model, plan.optimizer)).lower(state, batch)
        kept = {str(jnp.dtype(dtype)): kept_bytes(plan, dtype) for dtype in (jnp.float32, jnp.bfloat16)}
    return Facts(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        gradient_bytes=bytes_of(state.params),
        state_bytes=bytes_of(state),
        flops_an_image=(lowered.cost_analysis() or {})["flops"] / len(batch["label"]),
        kept_bytes_an_image=kept,
        checkpoint_bytes=bytes_on_disk(state),
    )


def batch_of(model: Classifier, n: int) -> Any:
    size = model.image_size
    return {
        "image": jax.ShapeDtypeStruct((n, size, size, 3), jnp.float32),
        "label": np.zeros(n, np.int32),
    }


def bytes_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def kept_bytes(plan: Plan, dtype: Any) -> float:
    """Bytes an image that wait for the backward pass: what a second image adds to a first."""
    model = create_model(plan.model, num_classes=CLASSES, dtype=dtype)

    def kept(n: int) -> int:
        images = batch_of(model, n)["image"]

        def backward(images: Any) -> Any:
            variables = model.init(jax.random.key(0), images, train=False)

            def outputs(params: Any) -> Any:
                own = {**variables, "params": params}
                key = {"dropout": jax.random.key(0)}
                return model.apply(own, images, train=True, mutable=["batch_stats"], rngs=key)[0]

            return jax.vjp(outputs, variables["params"])[1]

        return bytes_of(jax.eval_shape(backward, images))

    return kept(3) - kept(2)


def bytes_on_disk(state: Any) -> int:
    """Of a checkpoint."""
    random = np.random.default_rng(0)

    def numbers(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        checkpoints.save(1, jax.tree.map(numbers, state), {})
        checkpoints.close()
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def follows(plan: Plan, facts: Facts, devices: int, batch_size: int, options: argparse.Namespace) -> dict[str, str]:
    """A column of the plan."""
    share = batch_size // devices
    steps_per_epoch = IMAGES // batch_size
    computing = share * facts.flops_an_image / (options.tflops * 1e12)
    # What waits for the backward pass is written once and read once, whatever the compiler fuses.
    moving = share * 2 * facts.kept_bytes_an_image["bfloat16"] / (options.bandwidth * 1e12)
    step_seconds = max(computing, moving)
    rate = batch_size / step_seconds  # images a second
    # A ring sends every byte but a device's own share twice.
    sent = 2 * (devices - 1) / devices * facts.gradient_bytes
    memory = facts.state_bytes + facts.gradient_bytes + share * facts.kept_bytes_an_image["bfloat16"]
    size = create_model(plan.model).image_size
    return {
        "images a batch, and a device": f"{batch_size:,}, {share}",
        "steps an epoch, and in all": f"{steps_per_epoch:,}, {plan.epochs * steps_per_epoch:,}",
        "TFLOP a step and device": f"{share * facts.flops_an_image / 1e12:.1f}",
        "GB a device: state, gradient, activations in bfloat16": f"{memory / 1e9:.1f}",
        "MB a device sends for gradients, a step": f"{sent / 1e6:.0f}",
        "ms a step, at least: to compute, to move": f"{1e3 * computing:.1f}, {1e3 * moving:.1f}",
        "GB/s a device sends, to hide it": f"{sent / step_seconds / 1e9:.1f}",
        "images/s": f"{rate:,.0f}",
        "cores that decode and augment": f"{math.ceil(rate / options.images_per_core):,}",
        "GB/s from files": f"{rate * ARCHIVE_BYTES / IMAGES / 1e9:.1f}",
        "GB/s to each device": f"{rate / devices * size**2 * 3 * 4 / 1e9:.1f}",
        "hours, at least": f"{plan.epochs * steps_per_epoch * step_seconds / 3600:.2g}",
    }


if __name__ == "__main__":
    main()
