"""An exponential moving average of parameters and statistics, counted as torchvision's training reference counts it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Average = Callable[[Array, Any, Any], Any]
"""The step made (from 0), the average and the new values to the new average."""


def moving_average(decay: float, *, every: int, steps_per_epoch: int, copy_steps: int = 0) -> Average:
    """`torch.optim.swa_utils.AveragedModel(use_buffers=True)`, updated as torchvision's train.py does.

    Args:
        decay: of an update: average = decay average + (1 - decay) value. `decay_per_update` makes it.
        every: steps an update, counted from the start of each epoch.
        steps_per_epoch: of the run.
        copy_steps: while the learning rate rises, for these steps, the average is a copy; the first update copies too.
    """

    def average(step: Array, old: Any, new: Any) -> Any:
        kept = jnp.where(step <= copy_steps, 0.0, decay)

        def blend(old: Any, new: Any) -> Any:
            return jax.tree.map(lambda a, b: (kept * a + (1 - kept) * b).astype(a.dtype), old, new)

        # Most steps make no update, and need not read and write every number.
        return lax.cond(step % steps_per_epoch % every == 0, blend, lambda old, new: old, old, new)

    return average


def decay_per_update(decay: float, *, every: int, batch_size: int, epochs: int) -> float:
    """torchvision's: `decay` as if there were an update an image, an epoch long."""
    return 1 - min(1.0, (1 - decay) * batch_size * every / epochs)


def warmup_steps(warmup_epochs: float, steps_per_epoch: int) -> int:
    """Steps of the epochs that the learning rate rises in, the last whole."""
    return math.ceil(warmup_epochs) * steps_per_epoch
