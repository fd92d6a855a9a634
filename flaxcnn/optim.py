"""torch.optim's optimisers as Optax chains, and learning-rate schedules.

Each takes torch.optim's hyperparameters, by its names and with its defaults, and makes its updates. A
learning rate is a number or a schedule: a function of the step, counted from 0. A hyperparameter that torch.optim
refuses is a ValueError.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from optax import GradientTransformation, Schedule

from flaxcnn.errors import did_you_mean

LearningRate = float | Schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "adagrad",
    "adam",
    "adamw",
    "by_group",
    "constant",
    "cosine",
    "exponential",
    "matching",
    "rmsprop",
    "sgd",
    "warmup",
]


def sgd(
    learning_rate: LearningRate, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> GradientTransformation:
    """`torch.optim.SGD`, weight decay added to the gradient."""
    _check(momentum=momentum, weight_decay=weight_decay)
    if nesterov and not momentum:
        raise ValueError("nesterov needs a momentum above 0")
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def adagrad(
    learning_rate: LearningRate,
    *,
    lr_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
) -> GradientTransformation:
    """`torch.optim.Adagrad`: eps outside the root, the rate divided by 1 + step lr_decay."""
    _check(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, eps=eps, weight_decay=weight_decay)

    def rate(step: ArrayLike) -> Array:
        base = learning_rate(jnp.asarray(step)) if callable(learning_rate) else learning_rate
        return jnp.asarray(base / (1 + jnp.asarray(step) * lr_decay))

    def init(params: optax.Params) -> optax.Updates:
        return jax.tree.map(lambda p: jnp.full_like(p, initial_accumulator_value), params)

    def update(
        updates: optax.Updates, state: optax.Updates, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.Updates]:
        sums = jax.tree.map(lambda s, g: s + g * g, state, updates)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), updates, sums), sums

    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        GradientTransformation(init, update),
        optax.scale_by_learning_rate(rate),
    )


def rmsprop(
    learning_rate: LearningRate,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> GradientTransformation:
    """`torch.optim.RMSprop`: eps outside the root, the rate applied after the momentum."""
    _check(alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_rms(decay=alpha, eps=eps, initial_scale=0.0, eps_in_sqrt=False),
        optax.trace(momentum) if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> GradientTransformation:
    """`torch.optim.Adam`, weight decay added to the gradient."""
    _check(betas=betas, eps=eps, weight_decay=weight_decay)
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_adam(*betas, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> GradientTransformation:
    """`torch.optim.AdamW`, weight decay apart from the gradient and scaled by the rate."""
    _check(betas=betas, eps=eps, weight_decay=weight_decay)
    return optax.chain(
        optax.scale_by_adam(*betas, eps=eps),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


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


def _check(*, betas: tuple[float, float] = (0.0, 0.0), **values: float) -> None:
    """What torch.optim refuses."""
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be at least 0 and below 1, not {betas}")
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be 0 or more, not {value}")


def constant(rate: float, total_steps: int) -> Schedule:
    """The same rate throughout."""
    return optax.constant_schedule(rate)


def cosine(rate: float, total_steps: int, *, final: float = 0.0) -> Schedule:
    """Half a cosine from `rate` at step 0 to `final` (a rate too) at `total_steps`."""
    _check(final=final)
    if final > rate:
        raise ValueError(f"final is a rate, and must be {rate} or less, not {final}")
    return optax.cosine_decay_schedule(rate, max(total_steps, 1), alpha=final / rate)


def exponential(rate: float, total_steps: int, *, gamma: float, every: float) -> Schedule:
    """`rate` times `gamma` to the number of whole `every` steps that have passed."""
    _check(gamma=gamma)
    if round(every) < 1:
        raise ValueError(f"every must be 1 step or more, not {every}")
    return optax.exponential_decay(rate, transition_steps=round(every), decay_rate=gamma, staircase=True)


def warmup(schedule: Schedule, steps: int) -> Schedule:
    """Rise linearly to the schedule's first rate over `steps` steps, then follow it from its start.

    The first step already has 1/steps of the rate, so that none is lost to a rate of 0.
    """
    if steps <= 0:
        return schedule
    first = np.asarray(schedule(0)).item()
    rise = optax.linear_schedule(first / steps, first, max(steps - 1, 1))
    return optax.join_schedules([rise, schedule], [steps])


OPTIMIZERS: dict[str, Callable[..., GradientTransformation]] = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}
SCHEDULES: dict[str, Callable[..., Schedule]] = {"constant": constant, "cosine": cosine, "exponential": exponential}
