"""Groups of parameters: those that weight decay is for, those that train, and at which rate."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from optax import GradientTransformation

from flaxcnn.errors import did_you_mean
from flaxcnn.optim.optimizers import LearningRate, Mask


def kernels(params: optax.Params) -> Any:
    """A decay mask: neither norms nor biases, both of which have one axis."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def all_but_norms(params: optax.Params) -> Any:
    """A decay mask: biases too, but no scale and no bias of a norm; torchvision's `norm_weight_decay=0`."""
    # A group of parameters holds the others' places as masked nodes.
    places = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda p: isinstance(p, optax.MaskedNode))
    paths = [path for path, _ in places]
    norms = {path[:-1] for path in paths if path and path[-1] == jax.tree_util.DictKey("scale")}
    return jax.tree_util.tree_map_with_path(lambda path, _: path[:-1] not in norms, params)


def by_group(
    make: Callable[[LearningRate], GradientTransformation],
    learning_rate: LearningRate,
    params: optax.Params,
    *,
    trainable: Mapping[str, int] = MappingProxyType({"": 0}),
    factors: Mapping[str, float] = MappingProxyType({}),
) -> GradientTransformation:
    """An optimiser a group of parameters, for fine-tuning; frozen parameters have none.

    A group that starts to train late starts with a fresh state and at the schedule's rate of that step, as a group
    that is then added to an optimiser of torch.optim.

    Args:
        make: a learning rate to an optimiser.
        learning_rate: of all groups, but for their factors.
        params: arrays or their shapes.
        trainable: pattern (as in `matching`) -> step from which the parameters that match train; of several
            patterns, the earliest. What none matches is frozen.
        factors: pattern -> factor on the learning rate; of several patterns, the first.

    Returns:
        A transformation for these parameters. Frozen ones are only held in full, BatchNorm's statistics
        included, by `make_train_step(..., trainable=...)`.

    Raises:
        ValueError: when a pattern matches nothing.
    """
    starts: dict[str, int] = {}
    for pattern, start in trainable.items():
        for path in _matches(params, pattern):
            starts[path] = min(start, starts.get(path, start))
    scales: dict[str, float] = {}
    for pattern, factor in factors.items():
        for path in _matches(params, pattern):
            scales.setdefault(path, factor)
    groups = {path: (start, scales.get(path, 1.0)) for path, start in starts.items()}
    names = {group: f"group{i}" for i, group in enumerate(sorted(set(groups.values())))}

    def label(key: Any, leaf: Any) -> str:
        path = _path(key)
        return names[groups[path]] if path in groups else "frozen"

    labels = jax.tree_util.tree_map_with_path(label, params)
    transforms = {name: _one_group(make, learning_rate, *group) for group, name in names.items()}
    return optax.multi_transform({**transforms, "frozen": optax.set_to_zero()}, labels)


def _one_group(
    make: Callable[[LearningRate], GradientTransformation], learning_rate: LearningRate, start: int, factor: float
) -> GradientTransformation:
    def rate(step: ArrayLike) -> ArrayLike:
        # The optimiser counts from its group's start.
        return factor * (learning_rate(jnp.asarray(step) + start) if callable(learning_rate) else learning_rate)

    def has_started(step: ArrayLike, **extra: Any) -> Array:
        return jnp.asarray(step) >= start

    optimizer = make(rate)
    return optax.conditionally_mask(optimizer, has_started) if start else optimizer


def matching(params: optax.Params, pattern: str) -> Any:
    """Which parameters' paths begin with a match of a regular expression.

    Args:
        params: arrays or their shapes; the path of one is such as "layer4.1.conv2.kernel".
        pattern: such as "layer4|fc", r".*\\.bias", or "" for all.

    Returns:
        A tree of booleans.

    Raises:
        ValueError: when none does (close matches are listed), or it is no regular expression.
    """
    matches = set(_matches(params, pattern))
    return jax.tree_util.tree_map_with_path(lambda key, leaf: _path(key) in matches, params)


def _matches(params: optax.Params, pattern: str) -> list[str]:
    paths = [_path(key) for key, _ in jax.tree_util.tree_leaves_with_path(params)]
    try:
        matches = [path for path in paths if re.match(pattern, path)]
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not matches:
        parts = [path.split(".") for path in paths]
        beginnings = {".".join(words[:n]) for words in parts for n in range(1, len(words) + 1)}
        close = difflib.get_close_matches(pattern, beginnings, n=4, cutoff=0.5)
        hint = did_you_mean(pattern, close or {words[0] for words in parts})
        raise ValueError(f"no parameter's path begins with a match of {pattern!r}{hint}")
    return matches


def _path(key: Any) -> str:
    return jax.tree_util.keystr(key, simple=True, separator=".")


DECAY_MASKS: dict[str, Mask | None] = {"all": None, "all_but_norms": all_but_norms, "kernels": kernels}
