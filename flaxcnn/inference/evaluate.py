"""Exact evaluation: every example counts once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from flaxcnn.inference.views import logits_of
from flaxcnn.losses import Loss, softmax_cross_entropy
from flaxcnn.metrics import in_top_k, means, multilabel
from flaxcnn.models import Classifier

EvalStep = Callable[[Any, Mapping[str, Array]], dict[str, Array]]


def make_eval_step(
    model: Classifier,
    *,
    loss: Loss = softmax_cross_entropy,
    exclusive: bool = True,
    keep: Literal["sums", "predictions", "logits"] = "sums",
) -> EvalStep:
    """Make a pure evaluation step.

    Args:
        model: from `create_model`.
        loss: logits and labels to one value an example.
        exclusive: whether an image has one class: see `logits_of`.
        keep: `predictions` or `logits` of every example, for `evaluate_with_outputs`.

    Returns:
        A function of variables and a padded batch (`image` (n, h, w, c), or (n, views, h, w, c) to have the answers
        for several views averaged, `label` int (n,) or floats (n, classes), `mask` float (n,), 0 for padding) to the
        sums of `loss`, `top1` and `top5` over the real examples, and their `count`. To keep more, to the examples'
        `outputs`, `label` and `mask` too: outputs are logits (also where labels are floats) or predicted classes (n,).
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
        if keep == "sums" and labels.ndim == 1:
            return sums
        outputs = logits.argmax(axis=1) if keep == "predictions" and labels.ndim == 1 else logits
        return {**sums, "outputs": outputs, "label": labels, "mask": mask}

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
    ran = _run(step, variables, batches, interrupted)
    return None if ran is None else _result(*ran)


def evaluate_with_outputs(
    step: EvalStep,
    variables: Any,
    batches: Iterable[Mapping[str, Any]],
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], np.ndarray, np.ndarray] | None:
    """Evaluate over all batches, and keep what the network says of each example.

    Args:
        step: from `make_eval_step(..., keep="logits")` or `keep="predictions"`, jitted.
        variables: the model's.
        batches: as for `evaluate`.
        interrupted: likewise.

    Returns:
        What `evaluate` returns; float32 logits (n, classes) or predicted classes (n,); labels (n,) or (n, classes).
        None if interrupted.
    """
    ran = _run(step, variables, batches, interrupted)
    if ran is None:
        return None
    outputs, labels = map(np.concatenate, zip(*ran[1], strict=True))
    return _result(*ran), outputs, labels


_Parts = list[tuple[np.ndarray, np.ndarray]]


def _run(
    step: EvalStep, variables: Any, batches: Iterable[Mapping[str, Any]], interrupted: Callable[[], bool]
) -> tuple[dict[str, float], _Parts] | None:
    """The sums over all batches, and the outputs and labels of each where the step returns them."""
    sums: dict[str, float] = {}
    parts: _Parts = []
    previous: dict[str, Array] | None = None
    for batch in batches:
        if interrupted():
            return None
        # One batch behind, so that the device computes this one while the last is read.
        previous, finished = step(variables, batch), previous
        _add(sums, parts, finished)
    _add(sums, parts, previous)
    return sums, parts


def _result(sums: dict[str, float], parts: _Parts) -> dict[str, float]:
    ranked = {}
    if parts and parts[0][1].ndim == 2:
        ranked = multilabel(*map(np.concatenate, zip(*parts, strict=True)))
    return {**means(sums), **ranked, "examples": int(sums["count"])}


def _add(sums: dict[str, float], parts: _Parts, metrics: dict[str, Array] | None) -> None:
    if metrics is None:
        return
    values = jax.device_get(metrics)
    if "outputs" in values:
        real, outputs = values.pop("mask") > 0, values.pop("outputs")
        outputs = outputs if outputs.ndim == 1 else outputs.astype(np.float32)
        parts.append((outputs[real], values.pop("label")[real]))
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + float(value)
