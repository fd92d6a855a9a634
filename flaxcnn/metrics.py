"""Metrics as sums and counts, so that they add up over batches and devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


def in_top_k(logits: Array, labels: Array, k: int) -> Array:
    """Whether the label is among the k largest logits.

    Ties go to the lower class index, as in `argmax`; logits that are not numbers beat the label.

    Args:
        logits: (n, classes).
        labels: class indices (n,), or how much of each class there is (n, classes): one of the most will do. An image
            of no class is a miss.
        k: how many guesses count.

    Returns:
        bool (n,).
    """
    has_class = jnp.ones(len(labels), bool)
    if labels.ndim == 2:
        is_most = labels == labels.max(axis=1, keepdims=True)
        has_class = labels.max(axis=1) > 0
        labels = jnp.where(is_most, logits, -jnp.inf).argmax(axis=1)
    label = labels.reshape(-1, 1)
    own = jnp.take_along_axis(logits, label, axis=1)  # (n, 1)
    index = jnp.arange(logits.shape[1], dtype=labels.dtype).reshape(1, -1)
    ahead = ~(logits <= own) | ((logits == own) & (index < label))  # (n, classes)
    return (ahead.sum(axis=1) < k) & has_class


def multilabel(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well any number of classes an image were found.

    Args:
        logits: (n, classes), of all images: a ranking is no sum over batches.
        labels: whether each class is there (n, classes).

    Returns:
        `mean_average_precision` over the classes that there are; `f1`, over all decisions, and `macro_f1`, its mean
        over classes, where a class is found at a probability of a half. 0 to 1; scikit-learn's.
    """
    from sklearn.metrics import f1_score

    there, found = labels > 0.5, logits > 0
    of_nothing: dict[str, Any] = {"zero_division": 0}
    return {
        "mean_average_precision": float(np.nanmean(average_precision(logits, labels))) if there.any() else 0.0,
        "f1": float(f1_score(there, found, average="micro", **of_nothing)),
        "macro_f1": float(f1_score(there, found, average="macro", **of_nothing)),
    }


class ClassScores(NamedTuple):
    """How well each class is found: arrays (classes,), 0 where there is nothing to divide by."""

    precision: np.ndarray
    """How many of the images said to be of the class are."""
    recall: np.ndarray
    """How many of the images of the class are said to be; also its sensitivity."""
    specificity: np.ndarray
    """How many of the images of no such class are not said to be of it."""
    f1: np.ndarray
    """The harmonic mean of precision and recall."""
    support: np.ndarray
    """How many images of the class there are."""


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often images of one class are taken for another.

    Args:
        labels: class indices (n,).
        predicted: likewise.
        num_classes: the number of classes.

    Returns:
        int (classes, classes): a row a label, a column a prediction; scikit-learn's.
    """
    pairs = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Scores of classes of which an image has one.

    Args:
        confusion: from `confusion_matrix`.
    """
    return _scores(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1), confusion.sum())


def multilabel_class_scores(logits: np.ndarray, labels: np.ndarray) -> ClassScores:
    """Scores of classes of which an image has any number, found at a probability of a half.

    Args:
        logits: (n, classes).
        labels: whether each class is there (n, classes).
    """
    there, found = labels > 0.5, logits > 0
    return _scores((there & found).sum(axis=0), found.sum(axis=0), there.sum(axis=0), len(labels))


def average_precision(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How well each class ranks its images above the others, scikit-learn's average precision.

    Args:
        logits: (n, classes).
        labels: whether each class is there (n, classes).

    Returns:
        (classes,), NaN for a class that is nowhere.
    """
    from sklearn.metrics import average_precision_score

    there = labels > 0.5
    present = there.any(axis=0)
    by_class: dict[str, Any] = {"average": None}
    result = np.full(labels.shape[1], np.nan)
    if present.any():
        result[present] = average_precision_score(there[:, present], logits[:, present], **by_class)
    return result


def _scores(hits: np.ndarray, found: np.ndarray, there: np.ndarray, examples: int) -> ClassScores:
    return ClassScores(
        precision=_ratio(hits, found),
        recall=_ratio(hits, there),
        specificity=_ratio(examples - found - there + hits, examples - there),
        f1=_ratio(2 * hits, found + there),
        support=there,
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def confused_pairs(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The classes most often taken for others.

    Args:
        confusion: from `confusion_matrix`.
        most: pairs to return; fewer where there are no more.

    Returns:
        (label, prediction, images), most images first.
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(label), int(other), int(wrong[label, other])) for label, other in pairs if wrong[label, other] > 0]


class Calibration(NamedTuple):
    """Whether what is said with a probability of p is right p of the time; arrays (bins,), NaN for empty bins."""

    edges: np.ndarray
    """(bins + 1,): bin i holds probabilities above edges[i], up to and including edges[i + 1]."""
    confidence: np.ndarray
    """The mean probability."""
    accuracy: np.ndarray
    """How much of it is right."""
    predictions: np.ndarray
    """How many probabilities."""
    ece: float
    """The expected calibration error: the mean over bins, weighted by their predictions, of |accuracy - confidence|."""


def calibration(probabilities: np.ndarray, right: np.ndarray, *, bins: int = 15) -> Calibration:
    """Compare probabilities with how often they come true, in bins of equal width.

    Args:
        probabilities: (n,), in [0, 1].
        right: whether it came true (n,).
        bins: number of bins.

    Reference: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], probabilities)  # the lower bin's, on an edge
    count = np.bincount(index, minlength=bins)
    confidence, accuracy = (
        np.bincount(index, np.asarray(values, np.float64), bins) / np.where(count > 0, count, np.nan)
        for values in (probabilities, right)
    )
    ece = np.nansum(count * np.abs(accuracy - confidence)) / len(probabilities)
    return Calibration(edges, confidence, accuracy, count, float(ece))


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Divide summed metrics by their `count`.

    Args:
        sums: metric -> sum, and `count`, the examples summed over.

    Returns:
        metric -> mean, without `count`.
    """
    return {name: float(total) / float(sums["count"]) for name, total in sums.items() if name != "count"}
