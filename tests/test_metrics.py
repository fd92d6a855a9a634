"""Top-k and sums against torch, scikit-learn and by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.metrics import (
    average_precision,
    calibration,
    class_scores,
    confused_pairs,
    confusion_matrix,
    in_top_k,
    means,
    multilabel,
    multilabel_class_scores,
)

NAN, INF = float("nan"), float("inf")


def hits(logits: list[list[float]], labels: list[int], k: int) -> list[bool]:
    return np.asarray(in_top_k(jnp.array(logits), jnp.array(labels), k)).tolist()


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_top_k_is_torchs(k: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 7)).astype(np.float32), random.integers(7, size=50)
    top = torch.tensor(logits).topk(k).indices  # (n, k)
    expected = (top == torch.tensor(labels)[:, None]).any(dim=1).tolist()
    assert hits(logits.tolist(), labels.tolist(), k) == expected
    assert len(set(expected)) == (1 if k == 7 else 2)


def test_top_k_is_scikit_learns() -> None:
    from sklearn.metrics import top_k_accuracy_score

    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(200, 10)).astype(np.float32), random.integers(10, size=200)
    expected = top_k_accuracy_score(labels, logits, k=3, labels=np.arange(10))
    assert np.mean(hits(logits.tolist(), labels.tolist(), 3)) == pytest.approx(expected)


def test_ties_go_to_the_lower_index() -> None:
    logits = [[1.0, 2.0, 2.0, 2.0]] * 4
    assert hits(logits, [0, 1, 2, 3], 1) == [False, True, False, False]
    assert hits(logits, [0, 1, 2, 3], 2) == [False, True, True, False]
    assert hits(logits, [0, 1, 2, 3], 3) == [False, True, True, True]
    assert hits(logits, [0, 1, 2, 3], 4) == [True] * 4


def test_ties_are_as_argmax_and_a_stable_sort_have_them() -> None:
    random = np.random.default_rng(2)
    logits, labels = random.integers(3, size=(100, 6)).astype(np.float32), random.integers(6, size=100)
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 3, 5):
        expected = (order[:, :k] == labels[:, None]).any(axis=1).tolist()
        assert hits(logits.tolist(), labels.tolist(), k) == expected


def test_a_network_that_broke_down_is_never_right() -> None:
    broken = [NAN] * 10
    assert hits([broken] * 10, list(range(10)), 1) == [False] * 10
    assert hits([broken] * 10, list(range(10)), 5) == [False] * 10


def test_logits_that_are_not_numbers_beat_the_label() -> None:
    assert hits([[3.0, NAN, 1.0]] * 3, [0, 1, 2], 1) == [False] * 3
    assert hits([[3.0, NAN, 1.0]], [0], 2) == [True]
    assert hits([[INF, 0.0], [-INF, 0.0], [-INF, -INF]], [0, 0, 0], 1) == [True, False, True]


def test_means_divide_by_the_count() -> None:
    assert means({"loss": 6.0, "top1": 3, "count": 4}) == {"loss": 1.5, "top1": 0.75}


def test_any_of_the_most_probable_labels_will_do() -> None:
    labels = jnp.array([[0.0, 1.0, 1.0], [0.3, 0.7, 0.0], [0.0, 0.0, 0.0]])
    guesses = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    assert in_top_k(guesses, labels, 1).tolist() == [True, False, False]
    assert in_top_k(guesses, labels, 2).tolist() == [True, True, False]
    assert in_top_k(guesses, jnp.eye(3)[jnp.array([0, 0, 0])], 2).tolist() == [False, True, False]


def test_multilabel_by_hand() -> None:
    logits = np.array([[2.0, -1.0, -5.0], [1.0, -2.0, -5.0], [-1.0, -0.5, 3.0]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    # Ranked by class 0: 1, 0, 1; by class 1: 0, 0, 1. Class 2 is not there.
    first, second = (1 + 2 / 3) / 2, 1 / 3
    # Found: class 0 in images 0 (right) and 1 (wrong), missing in 2; class 1 never; class 2 in image 2 (wrong).
    assert multilabel(logits, labels) == pytest.approx(
        {"mean_average_precision": (first + second) / 2, "f1": 2 / 6, "macro_f1": (2 / 4 + 0 + 0) / 3}
    )


def test_an_image_of_no_class_is_a_miss() -> None:
    logits = jnp.asarray([[1.0, 2.0], [1.0, 2.0]])
    assert in_top_k(logits, jnp.asarray([[0.0, 0.0], [0.0, 1.0]]), 2).tolist() == [False, True]
    assert multilabel(np.ones((2, 2)), np.zeros((2, 2)))["mean_average_precision"] == 0.0


def test_confusion_and_class_scores_are_scikit_learns() -> None:
    from sklearn import metrics

    random = np.random.default_rng(0)
    labels = random.integers(6, size=300)  # no image of class 6
    predicted = np.where(random.random(300) < 0.7, labels, random.integers(1, 7, size=300))
    predicted[predicted == 3] = 6  # and nothing said to be of class 3
    confusion = confusion_matrix(labels, predicted, 7)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    scores = class_scores(confusion)
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for found, of_sklearn in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(found, of_sklearn, rtol=1e-15)
    negatives = metrics.multilabel_confusion_matrix(labels, predicted, labels=range(7))[:, 0]  # right, wrong
    np.testing.assert_allclose(scores.specificity, negatives[:, 0] / negatives.sum(axis=1), rtol=1e-15)


def test_scores_of_any_number_of_classes_are_scikit_learns() -> None:
    from sklearn import metrics

    random = np.random.default_rng(0)
    labels = (random.random((200, 4)) < (0.5, 0.1, 0.9, 0)).astype(np.float32)
    logits = random.normal(size=(200, 4)) + labels
    scores = multilabel_class_scores(logits, labels)
    expected = metrics.precision_recall_fscore_support(labels, logits > 0, zero_division=0)
    for found, of_sklearn in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(found, of_sklearn, rtol=1e-15)
    ranked = average_precision(logits, labels)
    of_sklearn = [metrics.average_precision_score(labels[:, i], logits[:, i]) for i in range(3)]
    np.testing.assert_allclose(ranked, [*of_sklearn, np.nan], rtol=1e-15)
    assert multilabel(logits, labels)["mean_average_precision"] == pytest.approx(np.mean(of_sklearn))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_is_scikit_learns(bins: int) -> None:
    from sklearn.calibration import calibration_curve

    random = np.random.default_rng(0)
    probabilities = np.append(random.beta(4, 2, size=400), [0.0, 0.2, 0.3, 0.7, 1.0])
    right = random.random(len(probabilities)) < probabilities**2
    found = calibration(probabilities, right, bins=bins)
    accuracy, confidence = calibration_curve(right, probabilities, n_bins=bins)
    filled = found.predictions > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], confidence, rtol=1e-12)
    assert found.predictions.sum() == len(probabilities)
    assert found.ece == pytest.approx((found.predictions[filled] / len(right) * np.abs(accuracy - confidence)).sum())


def test_calibration_by_hand() -> None:
    found = calibration(np.array([0.5, 0.6, 1.0]), np.array([True, False, True]), bins=2)
    np.testing.assert_array_equal(found.predictions, [1, 2])  # an edge belongs to the bin below
    np.testing.assert_allclose(found.confidence, [0.5, 0.8])
    np.testing.assert_allclose(found.accuracy, [1, 0.5])
    assert found.ece == pytest.approx(1 / 3 * 0.5 + 2 / 3 * 0.3)


def test_confused_pairs_by_hand() -> None:
    confusion = np.array([[9, 2, 0], [5, 9, 0], [2, 0, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0, 5), (0, 1, 2)]
    assert confused_pairs(confusion, 9) == [(1, 0, 5), (0, 1, 2), (2, 0, 2)]
    assert confused_pairs(np.diag([3, 4]), 9) == []
    assert confusion[0, 0] == 9  # what it is given stays
