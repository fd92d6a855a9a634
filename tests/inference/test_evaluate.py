"""Evaluation: every example once, padding never."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from flaxcnn.inference import evaluate, make_eval_step
from flaxcnn.losses import sigmoid_binary_cross_entropy
from flaxcnn.metrics import in_top_k, multilabel
from tests.train.tiny import Tiny, make_batch, make_variables

N = 10
MODEL = Tiny(num_classes=7)
VARIABLES = make_variables(MODEL)
IMAGES = make_batch(n=N)["image"]
LABELS = np.arange(N) % 7


def padded(batch_size: int):
    """Batches whose padding would be noticed: images of large values."""
    for start in range(0, N, batch_size):
        rows = np.arange(start, start + batch_size)
        real = rows < N
        images = np.where(real[:, None, None, None], IMAGES[rows % N], 1e6).astype(np.float32)
        yield {"image": images, "label": LABELS[rows % N], "mask": real.astype(np.float32)}


@pytest.mark.parametrize("batch_size", [1, 3, 10, 16])
def test_it_is_the_mean_over_the_examples(batch_size: int) -> None:
    logits = np.asarray(MODEL.apply(VARIABLES, IMAGES, train=False), np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    result = evaluate(jax.jit(make_eval_step(MODEL)), VARIABLES, padded(batch_size))
    assert result == pytest.approx(
        {
            "loss": -log_softmax(logits, axis=1)[np.arange(N), LABELS].mean(),
            "top1": (order[:, 0] == LABELS).mean(),
            "top5": (order[:, :5] == LABELS[:, None]).any(axis=1).mean(),
            "examples": N,
        },
        rel=1e-5,
    )
    assert isinstance(result["examples"], int)


def test_the_answers_for_several_views_are_averaged() -> None:
    views = np.stack([IMAGES, IMAGES[:, :, ::-1], IMAGES * 2], axis=1)  # (n, views, h, w, c)
    probabilities = np.mean([softmax(MODEL.apply(VARIABLES, views[:, i], train=False), axis=1) for i in range(3)], 0)
    batch = {"image": views, "label": LABELS, "mask": np.ones(N, np.float32)}
    result = evaluate(jax.jit(make_eval_step(MODEL)), VARIABLES, [batch])
    assert result is not None
    assert result["loss"] == pytest.approx(-np.log(probabilities[np.arange(N), LABELS]).mean(), rel=1e-5)
    assert result["top1"] == (probabilities.argmax(axis=1) == LABELS).mean()


def test_an_interrupted_evaluation_has_no_result() -> None:
    asked = iter([False, True])
    step = jax.jit(make_eval_step(MODEL))
    assert evaluate(step, VARIABLES, padded(3), interrupted=lambda: next(asked)) is None


def test_images_of_any_number_of_classes_are_ranked_over_all_batches() -> None:
    model = Tiny()
    variables = make_variables(model)
    random = np.random.default_rng(0)
    batches = []
    for seed in range(3):
        labels = random.integers(2, size=(8, 3)).astype(np.float32)
        mask = np.ones(8, np.float32) if seed < 2 else (np.arange(8) < 3).astype(np.float32)
        batches.append({**make_batch(seed), "label": labels, "mask": mask})
    step = jax.jit(make_eval_step(model, loss=sigmoid_binary_cross_entropy))
    result = evaluate(step, variables, batches)

    real = [batch["mask"] > 0 for batch in batches]
    images, labels = (
        np.concatenate([batch[name][r] for batch, r in zip(batches, real, strict=True)]) for name in ("image", "label")
    )
    logits = np.asarray(model.apply(variables, images, train=False))
    expected = multilabel(logits, labels)
    assert result == pytest.approx(
        {
            **expected,
            "loss": float(sigmoid_binary_cross_entropy(logits, labels).mean()),
            "top1": float(in_top_k(logits, jnp.asarray(labels), 1).mean()),
            "top5": float((labels.sum(axis=1) > 0).mean()),
            "examples": 19,
        },
        rel=1e-5,
    )
