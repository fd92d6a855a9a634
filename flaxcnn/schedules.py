"""Learning-rate schedules that count as torch.optim.lr_scheduler's do.

A schedule is a function of a count from 0: of steps, or through `by_epoch` of epochs. Each takes the rate, the
count at which training ends, and the hyperparameters of PyTorch's scheduler by their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

Schedule = Callable[[ArrayLike], Array]

__all__ = [
    "SCHEDULES",
    "Schedule",
    "by_epoch",
    "constant",
    "constant_warmup",
    "cosine",
    "cosine_restarts",
    "exponential",
    "linear_warmup",
    "multi_step",
    "one_cycle",
    "polynomial",
    "step",
]


def constant(rate: float, total: int) -> Schedule:
    """The same rate throughout."""
    return lambda count: jnp.asarray(rate) + 0.0 * jnp.asarray(count)


def step(rate: float, total: int, *, step_size: int, gamma: float = 0.1) -> Schedule:
    """`StepLR`: times `gamma` after every `step_size`."""
    _check_gamma(gamma)
    if step_size < 1:
        raise ValueError(f"step_size must be 1 or more, not {step_size}")
    return lambda count: rate * _power(gamma, jnp.asarray(count) // step_size)


def multi_step(rate: float, total: int, *, milestones: tuple[int, ...], gamma: float = 0.1) -> Schedule:
    """`MultiStepLR`: times `gamma` at each of the milestones."""
    _check_gamma(gamma)
    reached = np.sort(np.asarray(milestones))
    return lambda count: rate * _power(gamma, jnp.searchsorted(reached, jnp.asarray(count), side="right"))


def exponential(rate: float, total: int, *, gamma: float) -> Schedule:
    """`ExponentialLR`: times `gamma` at every count."""
    _check_gamma(gamma)
    return lambda count: rate * _power(gamma, jnp.asarray(count))


def polynomial(rate: float, total: int, *, power: float = 1.0) -> Schedule:
    """`PolynomialLR` to 0 at the end: a straight line at power 1."""
    if power < 0:
        raise ValueError(f"power must be 0 or more, not {power}")
    return lambda count: rate * (1 - _share(count, total)) ** power


def cosine(rate: float, total: int, *, eta_min: float = 0.0) -> Schedule:
    """`CosineAnnealingLR`: half a cosine to `eta_min`, a rate too, at the end, where it stays."""
    _check_eta_min(eta_min, rate)
    return lambda count: _half_cosine(rate, eta_min, _share(count, total))


def cosine_restarts(rate: float, total: int, *, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> Schedule:
    """`CosineAnnealingWarmRestarts`: half cosines, the first `T_0` long, each `T_mult` times as long as the last."""
    _check_eta_min(eta_min, rate)
    if T_0 < 1 or T_mult < 1:
        raise ValueError(f"T_0 and T_mult must be 1 or more, not {T_0} and {T_mult}")
    starts, lengths = [0], [T_0]
    while starts[-1] + lengths[-1] <= total:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)
    first, length = np.asarray(starts), np.asarray(lengths)

    def schedule(count: ArrayLike) -> Array:
        cycle = jnp.searchsorted(first, jnp.asarray(count), side="right") - 1
        since_restart = jnp.asarray(count) - jnp.asarray(first)[cycle]
        return _half_cosine(rate, eta_min, since_restart / jnp.asarray(length)[cycle])

    return schedule


def one_cycle(
    rate: float,
    total: int,
    *,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """`OneCycleLR(cycle_momentum=False)`: up from rate / div_factor to the rate, and down to a far smaller one."""
    if not 0 <= pct_start <= 1 or div_factor <= 0 or final_div_factor <= 0:
        raise ValueError(
            f"pct_start must be from 0 to 1 and the factors above 0, not {pct_start}, {div_factor}, {final_div_factor}"
        )
    start, end = rate / div_factor, rate / div_factor / final_div_factor
    top, last = pct_start * total - 1, total - 1
    between = _half_cosine if anneal_strategy == "cos" else _line

    def schedule(count: ArrayLike) -> Array:
        count = jnp.minimum(jnp.asarray(count), last)
        # A phase without length is never asked for, and must not divide by 0.
        up = between(start, rate, count / (top or 1))
        down = between(rate, end, (count - top) / ((last - top) or 1))
        return jnp.where(count <= top, up, down)

    return schedule


def linear_warmup(schedule: Schedule, length: int, *, start_factor: float | None = None) -> Schedule:
    """Rise to the schedule's first rate, then follow it from its start.

    Args:
        schedule: what follows.
        length: of the rise, in counts.
        start_factor: the share of the rate at count 0, as `LinearLR` has it, which reaches the rate at count
            `length`. None rises by equal steps from 1 / length, which reaches it one earlier.
    """
    if length <= 0:
        return schedule
    if start_factor is None:
        return _after(schedule, length, lambda count: (count + 1) / length)
    return _after(schedule, length, lambda count: _line(start_factor, 1.0, count / length))


def constant_warmup(schedule: Schedule, length: int, *, factor: float = 1 / 3) -> Schedule:
    """`ConstantLR`: a share of the schedule's first rate for `length` counts, then the schedule from its start."""
    if length <= 0:
        return schedule
    return _after(schedule, length, lambda count: jnp.asarray(factor))


def by_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """A schedule of epochs as one of steps: the rate changes between epochs, as torch's when stepped once an epoch."""
    return lambda count: schedule(jnp.asarray(count) // steps_per_epoch)


def _after(schedule: Schedule, length: int, share: Callable[[Array], Array]) -> Schedule:
    def warmed(count: ArrayLike) -> Array:
        count = jnp.asarray(count)
        return jnp.where(count < length, schedule(0) * share(1.0 * count), schedule(jnp.maximum(count - length, 0)))

    return warmed


def _share(count: ArrayLike, total: int) -> Array:
    return jnp.minimum(jnp.asarray(count) / float(max(total, 1)), 1.0)  # not beyond 1 by rounding


def _half_cosine(start: float, end: float, share: Array) -> Array:
    return end + (start - end) * (1 + jnp.cos(jnp.pi * share)) / 2


def _line(start: float, end: float, share: Array) -> Array:
    return start + (end - start) * share


def _power(gamma: float, count: Array) -> Array:
    # A float32 gamma raised to many steps would have its rounding raised too.
    return jnp.exp(count * math.log(gamma))


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma < float("inf"):
        raise ValueError(f"gamma must be above 0, not {gamma}")


def _check_eta_min(eta_min: float, rate: float) -> None:
    if not 0 <= eta_min <= rate:
        raise ValueError(f"eta_min is a rate, and must be from 0 to {rate}, not {eta_min}")


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "multi_step": multi_step,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
}
