"""torch.optim's optimisers as Optax chains; LAMB and LARS for large batches; clipping.

Each takes torch.optim's hyperparameters, by its names and with its defaults, and makes its updates. A
learning rate is a number or a schedule: a function of the step, counted from 0. A hyperparameter that torch.optim
refuses is a ValueError. `decay_mask` says which parameters weight decay is for, as a function of the parameters to a
tree of booleans (`kernels`, `all_but_norms`); None is all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from optax import GradientTransformation, Schedule

LearningRate = float | Schedule
Mask = Callable[[optax.Params], Any]


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
        correction, length = _one_minus_power(beta2, t), _length_of_average(beta2, t)
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


def _length_of_average(beta: float, t: Array) -> Array:
    """2 / (1 - beta) - 1 - 2 t beta^t / (1 - beta^t), of the simple average that the moving one is like.

    Its terms are far larger than it at first, where float32 would lose four digits. With x = -t log(beta), the last is
    2 / -log(beta) times x / (e^x - 1), whose series is that of Bernoulli's numbers: 1 - x / 2 + x^2 / 12 - ...
    """
    correction, decay = _one_minus_power(beta, t), -math.log(max(beta, 1e-30))
    square, rest = jnp.square(jnp.minimum(t * decay, 1)), 0.0
    for coefficient in (-691 / 1307674368000, 1 / 47900160, -1 / 1209600, 1 / 30240, -1 / 720, 1 / 12):
        rest = (rest + coefficient) * square
    longest = 2 / (1 - beta) - 1
    at_first = (longest - 2 / decay) + t - 2 / decay * rest
    return jnp.where(t * decay < 1, at_first, longest - 2 * t * (1 - correction) / correction)


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
