"""Losses against torch.nn.functional."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.losses import softmax_cross_entropy

N, CLASSES = 6, 5
RANDOM = np.random.default_rng(0)
LOGITS = (3 * RANDOM.normal(size=(N, CLASSES))).astype(np.float32)
INDICES = RANDOM.integers(CLASSES, size=N)
PROBABILITIES = RANDOM.dirichlet(np.ones(CLASSES), size=N).astype(np.float32)


def torch_loss_and_gradient(labels: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none", label_smoothing=smoothing)
    loss.sum().backward()
    return loss.detach().numpy(), logits.grad.numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [INDICES, PROBABILITIES], ids=["indices", "probabilities"])
def test_cross_entropy_is_torchs(labels: np.ndarray, smoothing: float) -> None:
    expected, gradient = torch_loss_and_gradient(labels, smoothing)

    def total(logits):
        return softmax_cross_entropy(logits, jnp.asarray(labels), label_smoothing=smoothing).sum()

    actual = softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(labels), label_smoothing=smoothing)
    assert actual.shape == (N,)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(LOGITS)), gradient, rtol=1e-5, atol=1e-6)


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
