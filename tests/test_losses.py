"""Losses against torch.nn.functional."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.losses import distillation, sigmoid_binary_cross_entropy, softmax_cross_entropy

N, CLASSES = 6, 5
RANDOM = np.random.default_rng(0)
LOGITS = (3 * RANDOM.normal(size=(N, CLASSES))).astype(np.float32)
INDICES = RANDOM.integers(CLASSES, size=N)
PROBABILITIES = RANDOM.dirichlet(np.ones(CLASSES), size=N).astype(np.float32)


WEIGHTS = RANDOM.uniform(0.5, 2.0, CLASSES).astype(np.float32)
MULTI_HOT = RANDOM.integers(2, size=(N, CLASSES)).astype(np.float32)


def value_and_gradient(loss, *arguments) -> tuple[jax.Array, jax.Array]:
    assert loss(jnp.asarray(LOGITS), *arguments).shape == (N,)
    return jax.value_and_grad(lambda logits: loss(logits, *arguments).mean())(jnp.asarray(LOGITS))


def assert_torchs(ours: tuple[jax.Array, jax.Array], torch_loss) -> None:
    """The mean loss and its gradient, with PyTorch's of the same logits."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = torch_loss(torch.nn.functional, torch.tensor, logits)
    loss.backward()
    np.testing.assert_allclose(ours[0], loss.item(), rtol=1e-5)
    np.testing.assert_allclose(ours[1], logits.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [INDICES, PROBABILITIES], ids=["indices", "probabilities"])
def test_cross_entropy_is_torchs(labels: np.ndarray, smoothing: float, weights: np.ndarray | None) -> None:
    loss = partial(softmax_cross_entropy, label_smoothing=smoothing, class_weights=weights)
    assert_torchs(
        value_and_gradient(loss, jnp.asarray(labels)),
        lambda F, tensor, logits: F.cross_entropy(
            logits,
            tensor(labels),
            label_smoothing=smoothing,
            weight=None if weights is None else tensor(weights),
        ),
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_binary_cross_entropy_is_torchs(weights: np.ndarray | None) -> None:
    loss = partial(sigmoid_binary_cross_entropy, class_weights=weights)
    assert_torchs(
        value_and_gradient(loss, jnp.asarray(MULTI_HOT)),
        lambda F, tensor, logits: F.binary_cross_entropy_with_logits(
            logits, tensor(MULTI_HOT), weight=None if weights is None else tensor(weights)
        ),
    )


def test_an_index_is_one_class_of_them() -> None:
    one_hot = np.eye(CLASSES, dtype=np.float32)[INDICES]
    logits = jnp.asarray(LOGITS)
    np.testing.assert_array_equal(
        sigmoid_binary_cross_entropy(logits, jnp.asarray(INDICES)),
        sigmoid_binary_cross_entropy(logits, jnp.asarray(one_hot)),
    )


def test_distillation_is_torchs() -> None:
    teacher = (2 * RANDOM.normal(size=(N, CLASSES))).astype(np.float32)
    loss = distillation(softmax_cross_entropy, temperature=3.0, weight=0.7)

    def torch_loss(F, tensor, logits):
        student, target = F.log_softmax(logits / 3, dim=1), F.log_softmax(tensor(teacher) / 3, dim=1)
        divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
        return 0.3 * F.cross_entropy(logits, tensor(INDICES)) + 0.7 * 9 * divergence

    assert_torchs(value_and_gradient(loss, jnp.asarray(INDICES), jnp.asarray(teacher)), torch_loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_logits_lose_nothing_more(smoothing: float) -> None:
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    loss = softmax_cross_entropy(logits, jnp.asarray(INDICES), label_smoothing=smoothing)
    assert loss.dtype == jnp.float32
    same = softmax_cross_entropy(logits.astype(jnp.float32), jnp.asarray(INDICES), label_smoothing=smoothing)
    np.testing.assert_array_equal(loss, same)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_class_has_no_loss(smoothing: float) -> None:
    loss = softmax_cross_entropy(jnp.zeros((4, 3)), jnp.array([0, -1, 3, -100]), label_smoothing=smoothing)
    assert jnp.isnan(loss).tolist() == [False, True, True, True]


def test_large_logits_do_not_overflow() -> None:
    logits = jnp.array([[1e4, 0.0], [1e4, 0.0]])
    np.testing.assert_allclose(softmax_cross_entropy(logits, jnp.array([0, 1])), [0.0, 1e4])


def test_uniform_logits_by_hand() -> None:
    np.testing.assert_allclose(softmax_cross_entropy(jnp.zeros((1, 8)), jnp.array([3])), [np.log(8)], rtol=1e-6)
