"""Schedules side by side with torch.optim.lr_scheduler. Imported only where torch is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import schedules

torch = pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")
from torch.optim import lr_scheduler  # noqa: E402

RATE = 0.3
WARMUP = 5


def in_sequence(first: Callable[..., Any], then: Callable[..., Any], at: int) -> Callable[..., Any]:
    return lambda optimizer: lr_scheduler.SequentialLR(optimizer, [first(optimizer), then(optimizer)], milestones=[at])


Pair = tuple[schedules.Schedule, Callable[..., Any], int]

# name -> our schedule, torch's, and over how many counts they agree
TORCH_SCHEDULES: dict[str, Pair] = {
    "constant": (
        schedules.constant(RATE, 200),
        partial(lr_scheduler.ConstantLR, factor=1.0),
        200,
    ),
    "step": (
        schedules.step(RATE, 200, step_size=7, gamma=0.97),
        partial(lr_scheduler.StepLR, step_size=7, gamma=0.97),
        200,
    ),
    "multi_step": (
        schedules.multi_step(RATE, 200, milestones=(5, 6, 150), gamma=0.2),
        partial(lr_scheduler.MultiStepLR, milestones=[5, 6, 150], gamma=0.2),
        200,
    ),
    "exponential": (schedules.exponential(RATE, 200, gamma=0.9), partial(lr_scheduler.ExponentialLR, gamma=0.9), 200),
    "polynomial": (
        schedules.polynomial(RATE, 150, power=0.9),
        partial(lr_scheduler.PolynomialLR, total_iters=150, power=0.9),
        200,
    ),
    "cosine": (
        schedules.cosine(RATE, 200, eta_min=0.01),
        partial(lr_scheduler.CosineAnnealingLR, T_max=200, eta_min=0.01),
        201,
    ),
    "cosine_restarts": (
        schedules.cosine_restarts(RATE, 200, T_0=7, eta_min=0.01),
        partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=7, eta_min=0.01),
        200,
    ),
    "cosine_restarts longer": (
        schedules.cosine_restarts(RATE, 200, T_0=3, T_mult=2),
        partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3, T_mult=2),
        200,
    ),
    "one_cycle": (
        schedules.one_cycle(RATE, 200),
        partial(lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=200, cycle_momentum=False),
        200,
    ),
    "one_cycle linear": (
        schedules.one_cycle(RATE, 197, pct_start=0.45, anneal_strategy="linear", div_factor=10, final_div_factor=100),
        partial(
            lr_scheduler.OneCycleLR,
            max_lr=RATE,
            total_steps=197,
            pct_start=0.45,
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        ),
        197,
    ),
}
WARMUPS: dict[str, tuple[Callable[..., schedules.Schedule], Callable[..., Any]]] = {
    "linear warm-up": (
        partial(schedules.linear_warmup, start_factor=0.01),
        partial(lr_scheduler.LinearLR, start_factor=0.01, total_iters=WARMUP),
    ),
    "by even rises": (
        schedules.linear_warmup,
        partial(lr_scheduler.LinearLR, start_factor=1 / WARMUP, total_iters=WARMUP - 1),
    ),
    "constant warm-up": (
        partial(schedules.constant_warmup, factor=0.1),
        partial(lr_scheduler.ConstantLR, factor=0.1, total_iters=WARMUP),
    ),
}


def _warmed(case: str, warmup: str) -> Pair:
    schedule, make_scheduler, steps = TORCH_SCHEDULES[case]
    warm, make_warm = WARMUPS[warmup]
    return warm(schedule, WARMUP), in_sequence(make_warm, make_scheduler, WARMUP), WARMUP + steps


PLAIN = list(TORCH_SCHEDULES)
TORCH_SCHEDULES |= {f"{case}, {warmup}": _warmed(case, warmup) for case in PLAIN for warmup in WARMUPS}


def rates(schedule: schedules.Schedule, steps: int) -> np.ndarray:
    """The rates of so many steps, as a jitted step computes them from an optimiser's count."""
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps, dtype=jnp.int32)))


def torch_rates(make_scheduler: Callable[..., Any], steps: int, *, steps_per_epoch: int = 1) -> list[float]:
    """The rates of so many steps, the scheduler stepped at the end of each epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = make_scheduler(optimizer)
    rates = []
    for step in range(1, steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % steps_per_epoch == 0:
            scheduler.step()
    return rates
