"""The training step: a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.metrics import in_top_k
from flaxcnn.models import Classifier
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
) -> Step:
    """Make a pure step: one batch forward and backward, one update of parameters and statistics.

    Args:
        model: from `create_model`.
        optimizer: the one the state was created with.
        loss: logits (n, classes) and labels to one value an example (n,); the step descends their mean.
        aux_weight: of each auxiliary head's loss, for models that have them.

    Returns:
        A function of a state and a batch (`image` (n, h, w, c) floats, `label` int (n,)) to the new
        state and metrics: sums over the batch of `loss` (auxiliary heads included) and `top1`, the
        number of examples as `count`, and `nonfinite`, 1 when the loss, a parameter or a statistic is not finite.
        Jit it with the state donated.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
            outputs, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
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
        params = optax.apply_updates(state.params, updates)
        # What is not finite in a gradient is not finite in the parameters it updates.
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm((params, batch_stats)))
        metrics["nonfinite"] = 1 - is_finite.astype(jnp.int32)
        state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        return state, metrics

    return step
