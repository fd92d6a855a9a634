"""Which models a test runs on, and at which sizes: all that a new family may have to add to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from flaxcnn import create_model, list_models
from flaxcnn.models import Classifier

GOLDEN_SHAPES = Path(__file__).parent / "models" / "golden_shapes.json"

# Variants whose blocks the smallest variant of their class has not.
_OTHER_BLOCKS = {"resnet50", "resnext50_32x4d", "shufflenet_v1_g3_x0_5", "vgg11_bn"}
# The default run compares their logits and shapes, and leaves to the slow one what has to be compiled beyond that.
_LONG_TO_COMPILE = {
    "efficientnet_b0",
    "efficientnet_lite0",
    "googlenet",
    "inception_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v1_g1_x0_5",
    "vgg11",
}
# The image sizes of models whose first fully connected layer fixes the number of pixels: the published one, and an
# odd and non-square one that pools to the same.
_FIXED_SIZES = {
    "alexnet_half": ((224, 224), (225, 231)),
    "inception_v1": ((224, 224), (225, 231)),
    "lenet": ((32, 32), (33, 35)),
}


def _smallest_of_each_class() -> set[str]:
    golden = json.loads(GOLDEN_SHAPES.read_text()) if GOLDEN_SHAPES.exists() else {}
    smallest: dict[type[Classifier], str] = {}
    size = {name: golden[name]["parameters"] if name in golden else 0 for name in list_models()}
    for name in sorted(list_models(), key=size.__getitem__):
        smallest.setdefault(type(create_model(name)), name)
    return set(smallest.values())


FAMILIES = sorted(_smallest_of_each_class())
"""The smallest variant of each family."""

PROBES = sorted({*FAMILIES, *_OTHER_BLOCKS})
"""The smallest variant of each distinct block: what all runs together compile for every check."""

QUICK = set(FAMILIES) - _LONG_TO_COMPILE
"""What the default run compiles for every check."""

TRAINED_LONGER = {"lenet", "shufflenet_v2_x0_5"}
"""What the default run trains ten steps in float64, and initialises."""


def variants_but_slow_beyond(quick: Iterable[str], among: Iterable[str] | None = None) -> pytest.MarkDecorator:
    """Parametrise over variants (all, or those `among`), those outside `quick` marked slow."""
    names = list_models() if among is None else sorted(among)
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]
    )


every_variant = variants_but_slow_beyond(list_models())
each_quick = variants_but_slow_beyond(QUICK, among=QUICK)
each_block = variants_but_slow_beyond(PROBES, among=PROBES)
each_probe = variants_but_slow_beyond(QUICK, among=PROBES)


def image_sizes(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest (height, width) that the model computes, and an odd, non-square one."""
    minimum = create_model(name).min_image_size
    odd = max(minimum, 32) // 2 * 2 + 1
    return _FIXED_SIZES.get(name, ((minimum, minimum), (odd, odd + 14)))


def small_size(name: str) -> tuple[int, int]:
    """A size to train at: 32x32, or what the model needs."""
    side = max(create_model(name).min_image_size, 32)
    return _FIXED_SIZES[name][0] if name in _FIXED_SIZES else (side, side)


def training_size(name: str) -> tuple[int, int]:
    """64x64, or what the model needs: over less, BatchNorm of few values makes the reference diverge from itself."""
    side = max(create_model(name).min_image_size, 64)
    return _FIXED_SIZES[name][0] if name in _FIXED_SIZES else (side, side)


def without_randomness(name: str) -> dict[str, float]:
    """The options that switch off dropout and stochastic depth."""
    model = create_model(name)
    return {rate: 0.0 for rate in ("dropout", "stochastic_depth") if hasattr(model, rate)}
