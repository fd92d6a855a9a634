"""Exact evaluation: every example counts once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax import Array

from flaxcnn.inference.views import logits_of
from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.metrics import in_top_k, means
from flaxcnn.models import Classifier

EvalStep = Callable[[Any, Mapping[str, Array]], dict[str, Array]]


def make_eval_step(model: Classifier) -> EvalStep:
    """Make a pure evaluation step.

    Args:
        model: from `create_model`.

    Returns:
        A function of variables and a padded batch (`image` (n, h, w, c), or (n, views, h, w, c) to have the
        answers for several views averaged, `label` int (n,), `mask` float (n,), 0 for padding) to the sums of
        `loss`, `top1` and `top5` over the real examples, and their `count`.
    """

    def step(variables: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
        logits = logits_of(model, variables, batch["image"])
        labels, mask = batch["label"], batch["mask"]
        return {
            "loss": (softmax_cross_entropy(logits, labels) * mask).sum(),
            "top1": (in_top_k(logits, labels, 1) * mask).sum(),
            "top5": (in_top_k(logits, labels, 5) * mask).sum(),
            "count": mask.sum(),
        }

    return step


def evaluate(
    step: EvalStep,
    variables: Any,
    batches: Iterable[Mapping[str, Any]],
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Evaluate over all batches.

    Args:
        step: from `make_eval_step`, jitted.
        variables: the model's.
        batches: padded and masked, as `flaxcnn.data.eval_batches` makes them.
        interrupted: asked before each batch; True gives up.

    Returns:
        The means `loss`, `top1` and `top5` (0 to 1) and the number of `examples`, or None if interrupted.
    """
    sums: dict[str, float] = {}
    previous: dict[str, Array] | None = None
    for batch in batches:
        if interrupted():
            return None
        # One batch behind, so that the device computes this one while the last is read.
        previous, finished = step(variables, batch), previous
        _add(sums, finished)
    _add(sums, previous)
    return {**means(sums), "examples": int(sums["count"])}


def _add(sums: dict[str, float], metrics: dict[str, Array] | None) -> None:
    if metrics is not None:
        for name, value in jax.device_get(metrics).items():
            sums[name] = sums.get(name, 0.0) + float(value)
