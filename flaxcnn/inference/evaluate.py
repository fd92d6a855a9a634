"""Exact evaluation: every example counts once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from flaxcnn.inference.views import logits_of
from flaxcnn.losses import Loss, softmax_cross_entropy
from flaxcnn.metrics import in_top_k, means, multilabel
from flaxcnn.models import Classifier

EvalStep = Callable[[Any, Mapping[str, Array]], dict[str, Array]]


def make_eval_step(model: Classifier, *, loss: Loss = softmax_cross_entropy, exclusive: bool = True) -> EvalStep:
    """Make a pure evaluation step.

    Args:
        model: from `create_model`.
        loss: logits and labels to one value an example.
        exclusive: whether an image has one class: see `logits_of`.

    Returns:
        A function of variables and a padded batch (`image` (n, h, w, c), or (n, views, h, w, c) to have the answers
        for several views averaged, `label` int (n,) or floats (n, classes), `mask` float (n,), 0 for padding) to the
        sums of `loss`, `top1` and `top5` over the real examples, and their `count`. Where labels are floats, to the
        examples' `logits`, `label` and `mask` too.
    """

    def step(variables: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
        logits = logits_of(model, variables, batch["image"], exclusive=exclusive)
        labels, mask = batch["label"], batch["mask"]
        sums = {
            "loss": (loss(logits, labels) * mask).sum(),
            "top1": (in_top_k(logits, labels, 1) * mask).sum(),
            "top5": (in_top_k(logits, labels, 5) * mask).sum(),
            "count": mask.sum(),
        }
        return {**sums, "logits": logits, "label": labels, "mask": mask} if labels.ndim == 2 else sums

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
        The means `loss`, `top1` and `top5` (0 to 1) and the number of `examples`, or None if interrupted. Where
        an image has any number of classes, `flaxcnn.metrics.multilabel` too.
    """
    sums: dict[str, float] = {}
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    previous: dict[str, Array] | None = None
    for batch in batches:
        if interrupted():
            return None
        # One batch behind, so that the device computes this one while the last is read.
        previous, finished = step(variables, batch), previous
        _add(sums, parts, finished)
    _add(sums, parts, previous)
    ranked = multilabel(*map(np.concatenate, zip(*parts, strict=True))) if parts else {}
    return {**means(sums), **ranked, "examples": int(sums["count"])}


def _add(sums: dict[str, float], parts: list[tuple[np.ndarray, np.ndarray]], metrics: dict[str, Array] | None) -> None:
    if metrics is None:
        return
    values = jax.device_get(metrics)
    if "logits" in values:
        real = values.pop("mask") > 0
        parts.append((values.pop("logits")[real].astype(np.float32), values.pop("label")[real]))
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + float(value)
