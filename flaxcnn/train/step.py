"""The training step: a pure function of state and batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.metrics import in_top_k
from flaxcnn.models import Classifier
from flaxcnn.optim import matching
from flaxcnn.train.freezing import frozen_in_evaluation, keep_frozen, without_gradient
from flaxcnn.train.state import TrainState

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[Array, Array], Array] = softmax_cross_entropy,
    aux_weight: float = 0.3,
    trainable: str = "",
) -> Step:
    """Make a pure step: one batch forward and backward, one update of parameters and statistics.

    Args:
        model: from `create_model`.
        optimizer: the one the state was created with.
        loss: logits (n, classes) and labels to one value an example (n,); the step descends their mean.
        aux_weight: of each auxiliary head's loss, for models that have them.
        trainable: a regular expression; parameters whose paths begin with a match of it train, such as "layer4|fc";
            by default all do. The others are frozen: nothing moves them, whatever the optimiser; BatchNorm without a
            parameter that trains is in evaluation, and so is dropout within a module without one.

    Returns:
        A function of a state and a batch (`image` (n, h, w, c) floats, `label` int (n,)) to the new
        state and metrics: sums over the batch of `loss` (auxiliary heads included) and `top1`, the
        number of examples as `count`, and `nonfinite`, 1 when the loss, a parameter or a statistic is not finite.
        Jit it with the state donated.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        mask = matching(state.params, trainable)

        def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
            with frozen_in_evaluation(mask):
                outputs, updates = model.apply(
                    {"params": without_gradient(params, mask), "batch_stats": state.batch_stats},
                    batch["image"],
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": key},
                )
            logits, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
            total = loss(logits, batch["label"]).mean()
            for head in aux:
                total += aux_weight * loss(head, batch["label"]).mean()
            return total, (logits, updates.get("batch_stats", {}))

        (value, (logits, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        count = jnp.asarray(logits.shape[0], value.dtype)
        metrics = {
            "loss": value * count,
            "top1": in_top_k(logits, batch["label"], 1).sum(),
            "count": count,
        }
        params = keep_frozen(mask, optax.apply_updates(state.params, updates), state.params)
        # What is not finite in a gradient is not finite in the parameters it updates.
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm((params, batch_stats)))
        metrics["nonfinite"] = 1 - is_finite.astype(jnp.int32)
        state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        return state, metrics

    return step


def in_phases(steps: Mapping[int, Step], done: int = 0) -> Step:
    """Steps that take turns, as a network is unfrozen: each from its number on, until the next.

    Args:
        steps: number of the first step, from 0 -> what makes it.
        done: steps made already.

    Returns:
        A function that counts its calls, and calls the one whose turn it is.
    """
    numbers = itertools.count(done)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        number = next(numbers)
        return steps[max(first for first in steps if first <= number)](state, batch)

    return step
