"""torch.optim's optimisers as Optax chains; LAMB and LARS for large batches; clipping.

Each takes torch.optim's hyperparameters, by its names and with its defaults, and makes its updates. A
learning rate is a number or a schedule: a function of the step, counted from 0. A hyperparameter that torch.optim
refuses is a ValueError. `decay_mask` says which parameters weight decay is for, as a function of the parameters to a
tree of booleans (`kernels`, `all_but_norms`); None is all of them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from optax import GradientTransformation, Schedule

from flaxcnn.errors import did_you_mean

LearningRate = float | Schedule
Mask = Callable[[optax.Params], Any]

__all__ = [
    "DECAY_MASKS",
    "OPTIMIZERS",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "all_but_norms",
    "by_group",
    "clip_by_norm",
    "clip_by_value",
    "kernels",
    "lamb",
    "lars",
    "matching",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
]


def sgd(
    learning_rate: LearningRate,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.SGD`, weight decay added to the gradient."""
    _check(momentum=momentum, weight_decay=weight_decay)
    if nesterov and (not momentum or dampening):
        raise ValueError("nesterov needs a momentum above 0 and no dampening")

    def damped(t: Array, gradient: Array, buffer: Array) -> tuple[Array, Array]:
        buffer = jnp.where(t == 1, gradient, momentum * buffer + (1 - dampening) * gradient)
        return buffer, buffer

    trace = _by_rule(damped, jnp.zeros_like) if dampening else optax.trace(momentum, nesterov)
    return optax.chain(
        _decay(weight_decay, decay_mask),
        trace if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def adagrad(
    learning_rate: LearningRate,
    *,
    lr_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.Adagrad`: eps outside the root, the rate divided by 1 + step lr_decay."""
    _check(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, eps=eps, weight_decay=weight_decay)

    def rule(t: Array, gradient: Array, squares: Array) -> tuple[Array, Array]:
        squares += gradient * gradient
        return gradient / (1 + (t - 1) * lr_decay) / (jnp.sqrt(squares) + eps), squares

    return optax.chain(
        _decay(weight_decay, decay_mask),
        _by_rule(rule, lambda p: jnp.full_like(p, initial_accumulator_value)),
        optax.scale_by_learning_rate(learning_rate),
    )


def rmsprop(
    learning_rate: LearningRate,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.RMSprop`: eps outside the root, the rate applied after the momentum."""
    _check(alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(
        _decay(weight_decay, decay_mask),
        scale(decay=alpha, eps=eps, initial_scale=0.0, eps_in_sqrt=False),
        optax.trace(momentum) if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.Adam`, weight decay added to the gradient."""
    return optax.chain(
        _decay(weight_decay, decay_mask),
        _scale_by_adam(betas, eps, amsgrad),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.AdamW`, weight decay apart from the gradient and scaled by the rate."""
    return optax.chain(
        _scale_by_adam(betas, eps, amsgrad),
        _decay(weight_decay, decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def adadelta(
    learning_rate: LearningRate,
    *,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.Adadelta`, weight decay added to the gradient."""
    _check(eps=eps)
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must be from 0 to 1, not {rho}")
    return optax.chain(
        _decay(weight_decay, decay_mask),
        optax.scale_by_adadelta(rho, eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamax(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.Adamax`, weight decay added to the gradient."""
    _check(betas=betas, eps=eps)
    return optax.chain(
        _decay(weight_decay, decay_mask),
        optax.scale_by_adamax(*betas, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def nadam(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.NAdam`: Adam with a Nesterov momentum that grows from half of beta1 to it."""
    _check(betas=betas, eps=eps, momentum_decay=momentum_decay)
    beta1, beta2 = betas

    def rule(t: Array, gradient: Array, m: Array, v: Array, product: Array) -> tuple[Array, ...]:
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * step)) for step in (t, t + 1))
        product = (product * mu).astype(product.dtype)
        m, v = _average(beta1, m, gradient), _average(beta2, v, gradient * gradient)
        ahead = gradient * (1 - mu) / (1 - product) + m * next_mu / (1 - product * next_mu)
        return ahead / (jnp.sqrt(v / _one_minus_power(beta2, t)) + eps), m, v, product

    return _decayed(
        _by_rule(rule, jnp.zeros_like, jnp.zeros_like, lambda p: jnp.ones((), p.dtype)),
        learning_rate,
        _decay(weight_decay, decay_mask),
        decoupled=decoupled_weight_decay,
    )


def radam(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """`torch.optim.RAdam`: Adam whose step is rectified for the variance of its first estimates."""
    _check(betas=betas, eps=eps)
    beta1, beta2 = betas
    longest = 2 / (1 - beta2) - 1

    def rule(t: Array, gradient: Array, m: Array, v: Array) -> tuple[Array, ...]:
        m, v = _average(beta1, m, gradient), _average(beta2, v, gradient * gradient)
        correction = _one_minus_power(beta2, t)
        length = longest - 2 * t * (1 - correction) / correction
        known = jnp.maximum(length, 5)  # below, the rectification is not used, nor real
        rectified = jnp.sqrt(
            (known - 4) * (known - 2) * longest / ((longest - 4) * (longest - 2) * known) * correction
        ) / (jnp.sqrt(v) + eps)
        factor = jnp.where(length > 5, rectified, 1.0)
        return m / _one_minus_power(beta1, t) * factor, m, v

    return _decayed(
        _by_rule(rule, jnp.zeros_like, jnp.zeros_like),
        learning_rate,
        _decay(weight_decay, decay_mask),
        decoupled=decoupled_weight_decay,
    )


def lamb(
    learning_rate: LearningRate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """LAMB (You et al., arXiv 1904.00962): AdamW with a rate a layer, for those that weight decay is for."""
    ratio = optax.scale_by_trust_ratio()
    return optax.chain(
        _scale_by_adam(betas, eps),
        _decay(weight_decay, decay_mask),
        optax.masked(ratio, decay_mask) if decay_mask else ratio,
        optax.scale_by_learning_rate(learning_rate),
    )


def lars(
    learning_rate: LearningRate,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_coefficient: float = 1e-3,
    eps: float = 0.0,
    weight_decay: float = 0.0,
    decay_mask: Mask | None = None,
) -> GradientTransformation:
    """LARS (You et al., arXiv 1708.03888): SGD with a rate a layer, for those that weight decay is for."""
    _check(momentum=momentum, trust_coefficient=trust_coefficient, eps=eps, weight_decay=weight_decay)
    mask = decay_mask or True
    return optax.lars(learning_rate, weight_decay, mask, trust_coefficient, eps, mask, momentum, nesterov)


def clip_by_norm(max_norm: float) -> GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`: scale all gradients down to a norm that they share."""

    def update(updates: optax.Updates, state: Any, params: optax.Params | None = None) -> tuple[optax.Updates, Any]:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return GradientTransformation(optax.init_empty_state, update)


def clip_by_value(clip_value: float) -> GradientTransformation:
    """`torch.nn.utils.clip_grad_value_`: each element to [-clip_value, clip_value]."""
    return optax.clip(clip_value)


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


class _RuleState(NamedTuple):
    step: Array
    slots: tuple[optax.Updates, ...]


def _by_rule(rule: Callable[..., tuple[Array, ...]], *start: Callable[[Array], Array]) -> GradientTransformation:
    """A rule for one parameter, for all of them.

    Args:
        rule: (update's number, from 1; gradient; slots) to (update; new slots).
        start: parameter to the first value of a slot.
    """

    def init(params: optax.Params) -> _RuleState:
        return _RuleState(jnp.zeros((), jnp.int32), tuple(jax.tree.map(first, params) for first in start))

    def update(
        updates: optax.Updates, state: _RuleState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _RuleState]:
        step = state.step + 1
        results = jax.tree.map(lambda *leaves: rule(step, *leaves), updates, *state.slots)
        columns = jax.tree.structure((0,) * (1 + len(start)))
        updates, *slots = jax.tree.transpose(jax.tree.structure(updates), columns, results)
        return updates, _RuleState(step, tuple(slots))

    return GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _scale_by_adam(betas: tuple[float, float], eps: float, amsgrad: bool = False) -> GradientTransformation:
    _check(betas=betas, eps=eps)
    beta1, beta2 = betas

    def rule(t: Array, gradient: Array, m: Array, v: Array, *largest: Array) -> tuple[Array, ...]:
        m, v = _average(beta1, m, gradient), _average(beta2, v, gradient * gradient)
        largest = tuple(jnp.maximum(each, v) for each in largest)
        root = jnp.sqrt((*largest, v)[0] / _one_minus_power(beta2, t))
        return m / _one_minus_power(beta1, t) / (root + eps), m, v, *largest

    return _by_rule(rule, *[jnp.zeros_like] * (3 if amsgrad else 2))


def _average(beta: float, average: Array, value: Array) -> Array:
    return beta * average + (1 - beta) * value


def _one_minus_power(beta: float, t: Array) -> ArrayLike:
    """1 - beta^t, without float32's cancellation at a beta near 1."""
    return -jnp.expm1(t * math.log(beta)) if beta else 1.0


def _decay(weight_decay: float, mask: Mask | None) -> GradientTransformation:
    _check(weight_decay=weight_decay)
    return optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity()


def _decayed(
    scale: GradientTransformation, learning_rate: LearningRate, decay: GradientTransformation, *, decoupled: bool
) -> GradientTransformation:
    order = (scale, decay) if decoupled else (decay, scale)
    return optax.chain(*order, optax.scale_by_learning_rate(learning_rate))


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


OPTIMIZERS: dict[str, Callable[..., GradientTransformation]] = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "adadelta": adadelta,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "lamb": lamb,
    "lars": lars,
}
DECAY_MASKS: dict[str, Mask | None] = {"all": None, "all_but_norms": all_but_norms, "kernels": kernels}
