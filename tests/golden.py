"""Stored shapes and logits, against which every later version is compared; run as a module to store them anew."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxcnn import create_model, list_models, to_torch
from flaxcnn.models import Classifier, abstract_variables
from tests.variants import GOLDEN_SHAPES

GOLDEN_LOGITS = Path(__file__).parent / "models" / "golden_logits.json"
SHAPES_COMMAND = "python -m tests.golden shapes"
LOGITS_COMMAND = "python -m tests.golden logits (needs PyTorch: the numbers are the reference's)"

# name -> height and width
LOGIT_VARIANTS = {
    "alexnet_half": (225, 231),
    "googlenet": (33, 47),
    "efficientnet_b0": (33, 47),
    "efficientnet_lite0": (33, 47),
    "lenet": (33, 35),
    "mobilenet_v1_025": (33, 47),
    "mobilenet_v2": (33, 47),
    "mobilenet_v3_small": (33, 47),
    "resnet18": (33, 47),
    "shufflenet_v1_g3_x0_5": (33, 47),
    "shufflenet_v2_x0_5": (33, 47),
}


def describe_shapes(variables: Any) -> dict[str, Any]:
    """The number of parameters, and for each second-level module its leaves, values and a hash of their shapes."""
    modules: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for path, leaf in sorted(flatten_dict(dict(variables)).items()):
        _, *scopes, _ = path
        modules.setdefault(".".join(scopes[:2]), []).append(("/".join(path), leaf.shape))
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "modules": {
            module: f"{len(leaves)} leaves, {sum(int(np.prod(shape)) for _, shape in leaves)} values, "
            + hashlib.sha256(repr(leaves).encode()).hexdigest()[:8]
            for module, leaves in modules.items()
        },
    }


def load_shapes() -> dict[str, Any]:
    """name -> what `describe_shapes` found when it was stored."""
    return json.loads(GOLDEN_SHAPES.read_text())


def load_logits() -> dict[str, list[list[float]]]:
    """name -> logits (2, 10)."""
    return json.loads(GOLDEN_LOGITS.read_text())


def deterministic(model: Classifier, size: tuple[int, int], batch: int = 2) -> tuple[Any, np.ndarray]:
    """Variables and images that numpy makes alike everywhere (and much sooner than `model.init` is compiled)."""
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, *size, 3)).astype(np.float32)

    def draw(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[-1] == "kernel":
            return random.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5)
        return random.uniform(0.5, 1.5, shape) if path[-1] in ("scale", "var") else random.normal(size=shape, scale=0.1)

    abstract = flatten_dict(abstract_variables(model))
    flat = {path: draw(path, leaf.shape).astype(np.float32) for path, leaf in sorted(abstract.items())}
    return unflatten_dict(flat), images


def _reference_logits(name: str, size: tuple[int, int]) -> list[list[float]]:
    import torch

    from tests.references import to_nchw, torch_reference

    model = create_model(name, num_classes=10)
    variables, images = deterministic(model, size)
    reference = torch_reference(name, num_classes=10)
    state_dict = {key: torch.from_numpy(value) for key, value in to_torch(model, variables).items()}
    reference.load_state_dict(state_dict)
    with torch.no_grad():
        logits = reference.double().eval()(to_nchw(images.astype(np.float64)))
    return [[float(f"{value:.7g}") for value in row] for row in logits.tolist()]


def _write(path: Path, content: dict[str, Any]) -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(content.items())]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    """Store anew what the argument names."""
    match sys.argv[1:]:
        case ["shapes"]:
            models = {name: create_model(name) for name in list_models()}
            _write(GOLDEN_SHAPES, {name: describe_shapes(abstract_variables(m)) for name, m in models.items()})
        case ["logits"]:
            _write(GOLDEN_LOGITS, {name: _reference_logits(name, size) for name, size in LOGIT_VARIANTS.items()})
        case _:
            sys.exit("usage: python -m tests.golden shapes|logits")


if __name__ == "__main__":
    main()
