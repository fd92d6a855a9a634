"""The learning-rate range test: a rate that grows until the loss does (Smith, arXiv 1506.01186)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxcnn.schedules import Schedule

_SMOOTHING = 0.9
_DIVERGED = 4.0


def geometric(lowest: float, highest: float, steps: int) -> Schedule:
    """From one rate to another, times the same at every step."""
    growth = math.log(highest / lowest) / max(steps - 1, 1)
    return lambda count: lowest * jnp.exp(growth * jnp.asarray(count))


def range_test(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, batches: Iterable[Any]
) -> tuple[list[float], str]:
    """The smoothed loss of each step until it is four times the best or not finite, and which of both ended it.

    Args:
        step: state and batch to state and metrics; its optimiser's rate grows.
        state: before the first step.
        batches: one a step.

    Returns:
        The losses, and what the loss did then, such as "grew fourfold"; empty where the batches came to their end.
    """
    losses: list[float] = []
    average = 0.0
    for batch in batches:
        state, metrics = step(state, batch)
        loss = float(metrics["loss"]) / float(metrics["count"])
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed = average / (1 - _SMOOTHING ** (len(losses) + 1))
        if not math.isfinite(smoothed):
            return losses, f"became {smoothed}"
        if smoothed > _DIVERGED * min([smoothed, *losses]):
            return losses, "grew fourfold"
        losses.append(smoothed)
    return losses, ""


def suggestion(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls steepest, against the rate's logarithm, on its way to its lowest."""
    slopes = np.gradient(losses, np.log(rates))[: int(np.argmin(losses)) + 1]  # it may jump and fall back beyond
    return rates[int(np.argmin(slopes))]
