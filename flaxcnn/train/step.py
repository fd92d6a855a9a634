"""The training step: a pure function of state and batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.metrics import in_top_k
from flaxcnn.models import Classifier
from flaxcnn.optim import matching
from flaxcnn.train.averaging import Average
from flaxcnn.train.freezing import frozen_in_evaluation, keep_frozen, without_gradient
from flaxcnn.train.remat import rematerialized
from flaxcnn.train.state import TrainState

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Step = Callable[..., tuple[TrainState, Metrics]]
Gradient = Callable[[Any, Any, Batch, Array], tuple[Any, Any, Metrics]]
"""Parameters, statistics, batch and dropout's key to gradient, new statistics and sums of metrics."""


def make_train_step(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[..., Array] = softmax_cross_entropy,
    aux_weight: float = 0.3,
    mixing: Callable[[Array, Batch], Batch] | None = None,
    teacher: Classifier | None = None,
    average: Average | None = None,
    microbatches: int = 1,
    remat: bool = False,
    axis_name: str | None = None,
    trainable: str = "",
) -> Step:
    """Make a pure step: one batch forward and backward, one update of parameters and statistics.

    Args:
        model: from `create_model`.
        optimizer: the one the state was created with.
        loss: logits (n, classes) and labels to one value an example (n,); the step descends their mean.
        aux_weight: of each auxiliary head's loss, for models that have them.
        mixing: of the batch's examples, given a key of the step: see `flaxcnn.data.mixing`.
        teacher: a model whose logits, in evaluation, the loss gets as a third argument; the step then takes its
            variables as a third argument.
        average: of parameters and statistics, where the state keeps one.
        microbatches: parts that the gradient of the batch is summed over, one after the other. BatchNorm normalises
            each part by itself, and updates its statistics with each.
        remat: keep the inputs of blocks only, and compute the rest again for the gradient.
        axis_name: of the `pmap` that the step is in. Gradients are averaged over its devices; statistics are the first
            device's, as DistributedDataParallel's are.
        trainable: a regular expression; parameters whose paths begin with a match of it train, such as "layer4|fc";
            by default all do. The others are frozen: nothing moves them, whatever the optimiser; BatchNorm without a
            parameter that trains is in evaluation, and so is dropout within a module without one.

    Returns:
        A function of a state and a batch (`image` (n, h, w, c) floats, `label` int (n,) or floats (n, classes)) to the
        new state and metrics: sums over the batch of `loss` (auxiliary heads included) and `top1`, the number of
        examples as `count`, and `nonfinite`, 1 when the loss, a parameter or a statistic is not finite.
        Jit it with the state donated.
    """
    apply = rematerialized(model.apply) if remat else model.apply
    gradient = _make_gradient(partial(apply, train=True, mutable=["batch_stats"]), loss, aux_weight, trainable)
    if microbatches > 1:
        gradient = _summed(gradient, microbatches)
    if axis_name is not None:
        gradient = _over_devices(gradient, axis_name)

    def step(state: TrainState, batch: Batch, teacher_variables: Any = None) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        if mixing is not None:
            batch = mixing(jax.random.fold_in(key, 1), batch)
        if teacher is not None:
            answers: Any = teacher.apply(teacher_variables, batch["image"], train=False)
            batch = {**batch, "teacher": answers}
        grads, batch_stats, metrics = gradient(state.params, state.batch_stats, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        mask = matching(state.params, trainable)
        params = keep_frozen(mask, optax.apply_updates(state.params, updates), state.params)
        # What is not finite in a gradient is not finite in the parameters it updates.
        is_finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(optax.tree.norm((params, batch_stats)))
        metrics["nonfinite"] = 1 - is_finite.astype(jnp.int32)
        new = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        if average is not None:
            new = new.replace(average=average(state.step, state.average, new.variables))
        return new, metrics

    return step


def _make_gradient(
    apply: Callable[..., Any], loss: Callable[..., Array], aux_weight: float, trainable: str
) -> Gradient:
    def gradient(params: Any, batch_stats: Any, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        mask = matching(params, trainable)
        targets = [batch[name] for name in ("label", "teacher") if name in batch]

        def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
            variables = {"params": without_gradient(params, mask), "batch_stats": batch_stats}
            with frozen_in_evaluation(mask):
                outputs, updates = apply(variables, batch["image"], rngs={"dropout": key})
            logits, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
            total = loss(logits, *targets).mean()
            for head in aux:
                total += aux_weight * loss(head, *targets).mean()
            return total, (logits, updates.get("batch_stats", {}))

        (value, (logits, new_stats)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        count = jnp.asarray(logits.shape[0], value.dtype)
        top1 = in_top_k(logits, batch["label"], 1).sum()
        return grads, new_stats, {"loss": value * count, "top1": top1, "count": count}

    return gradient


def _summed(gradient: Gradient, microbatches: int) -> Gradient:
    """The gradient of a batch, a part of it at a time."""

    def summed(params: Any, batch_stats: Any, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        def part(x: Array) -> Array:
            # Every so many examples, so that each device has its share of every part.
            return x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)

        def add(carry: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
            number, batch = numbered
            total, batch_stats = carry
            grads, batch_stats, metrics = gradient(params, batch_stats, batch, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, total, (grads, metrics)), batch_stats), None

        parts = jax.tree.map(part, dict(batch))
        grads, _, metrics = jax.eval_shape(gradient, params, batch_stats, jax.tree.map(lambda x: x[0], parts), key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
        # On CPU, XLA computes convolutions in a loop on one core, and badly: 7 to 40 times slower.
        unroll = jax.default_backend() == "cpu"
        carry, _ = lax.scan(add, (zeros, batch_stats), (jnp.arange(microbatches), parts), unroll=unroll)
        (grads, metrics), batch_stats = carry
        return jax.tree.map(lambda g: g / microbatches, grads), batch_stats, metrics

    return summed


def _over_devices(gradient: Gradient, axis_name: str) -> Gradient:
    """The gradient of a batch that is spread over a mapped axis."""

    def over_devices(params: Any, batch_stats: Any, batch: Batch, key: Array) -> tuple[Any, Any, Metrics]:
        grads, batch_stats, metrics = gradient(params, batch_stats, batch, key)
        first = lax.axis_index(axis_name) == 0
        batch_stats = lax.psum(jax.tree.map(lambda s: jnp.where(first, s, 0), batch_stats), axis_name)
        return lax.pmean(grads, axis_name), batch_stats, lax.psum(metrics, axis_name)

    return over_devices


def in_phases(steps: Mapping[int, Step], done: int = 0) -> Step:
    """Steps that take turns, as a network is unfrozen: each from its number on, until the next.

    Args:
        steps: number of the first step, from 0 -> what makes it.
        done: steps made already.

    Returns:
        A function that counts its calls, and calls the one whose turn it is.
    """
    numbers = itertools.count(done)

    def step(state: TrainState, batch: Batch, *more: Any) -> tuple[TrainState, Metrics]:
        number = next(numbers)
        return steps[max(first for first in steps if first <= number)](state, batch, *more)

    return step
