"""Top-k and sums against torch, scikit-learn and by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.metrics import in_top_k, means, multilabel

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
