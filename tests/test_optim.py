"""Optimisers against torch.optim, step by step."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxcnn import optim

torch = pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from tests.optimizers import CASES, both, swaying_rate  # noqa: E402

ON_A_NETWORK = ["sgd momentum", "rmsprop", "adamw weight decay"]


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        *[(case, "bowl") for case in CASES],
        *[(case, "network") for case in ON_A_NETWORK],
    ],
)
def test_updates_are_torchs(case: str, problem: str) -> None:
    for key, error in both(case, steps=20, rate=swaying_rate, dtype="float32", problem=problem).items():
        assert error <= 1e-5, f"{key} off by {error:.1e}"


def test_every_optimizer_is_tested() -> None:
    assert {name for name, _, _ in CASES.values()} == set(optim.OPTIMIZERS) - {"lamb", "lars"}


PARAMS = {"conv": {"kernel": np.full((1, 1, 2, 2), 2.0), "bias": np.ones(2)}, "bn": {"scale": np.ones(2)}}
GRADS = {"conv": {"kernel": np.full((1, 1, 2, 2), 0.5), "bias": np.full(2, 3.0)}, "bn": {"scale": np.full(2, 3.0)}}


def updates(optimizer: optax.GradientTransformation, params=PARAMS, grads=GRADS):
    params, grads = jax.tree.map(jnp.asarray, (params, grads))
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_the_first_update_of_lamb_by_hand() -> None:
    found = updates(optim.lamb(0.1, weight_decay=0.25, decay_mask=optim.kernels))
    # Adam's first update is the gradient's sign; 0.25 * 2 of decay; the rate times |parameter| / |update|.
    np.testing.assert_allclose(found["conv"]["kernel"], -0.1 * 1.5 * (2 / 1.5), rtol=1e-5)
    np.testing.assert_allclose(found["conv"]["bias"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(found["bn"]["scale"], -0.1, rtol=1e-5)


def test_the_first_update_of_lars_by_hand() -> None:
    found = updates(optim.lars(0.1, weight_decay=0.25, trust_coefficient=0.01, decay_mask=optim.kernels))
    np.testing.assert_allclose(found["conv"]["kernel"], -0.1 * 1.0 * 0.01 * (2 / 1.0), rtol=1e-5)
    np.testing.assert_allclose(found["conv"]["bias"], -0.1 * 3, rtol=1e-5)


def test_decay_masks() -> None:
    params = {**PARAMS, "fc": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
    params["bn"] = {"scale": np.ones(2), "bias": np.ones(2)}
    params = jax.tree.map(jnp.asarray, params)
    neither = {"kernel": True, "bias": False}
    assert optim.kernels(params) == {"conv": neither, "fc": neither, "bn": {"scale": False, "bias": False}}
    both_ = {"kernel": True, "bias": True}
    assert optim.all_but_norms(params) == {"conv": both_, "fc": both_, "bn": {"scale": False, "bias": False}}


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_is_torchs(limit: float) -> None:
    for ours, theirs in (
        (optim.clip_by_norm, torch.nn.utils.clip_grad_norm_),
        (optim.clip_by_value, torch.nn.utils.clip_grad_value_),
    ):
        leaves = [torch.zeros(grad.shape) for grad in jax.tree.leaves(GRADS)]
        for leaf, grad in zip(leaves, jax.tree.leaves(GRADS), strict=True):
            leaf.grad = torch.tensor(grad, dtype=torch.float32)
        theirs(leaves, limit)
        found = jax.tree.leaves(updates(ours(limit)))
        for mine, leaf in zip(found, leaves, strict=True):
            np.testing.assert_allclose(mine, leaf.grad, rtol=2e-7)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": -0.1}),
        ("sgd", {"weight_decay": -0.1}),
        ("sgd", {"nesterov": True}),
        ("rmsprop", {"alpha": -0.1}),
        ("rmsprop", {"eps": -1e-8}),
        ("adam", {"betas": (1.0, 0.9)}),
        ("adam", {"betas": (0.9, -0.1)}),
        ("adamw", {"eps": float("nan")}),
        ("adadelta", {"rho": 1.5}),
        ("adamax", {"weight_decay": -1.0}),
        ("nadam", {"momentum_decay": -1.0}),
        ("radam", {"betas": (0.9, 1.0)}),
    ],
)
def test_what_torch_refuses_is_refused(name: str, options: dict) -> None:
    torch_class = next(torch_class for own, torch_class, _ in CASES.values() if own == name)
    with pytest.raises(ValueError):
        getattr(torch.optim, torch_class)([torch.zeros(1)], lr=0.1, **options)
    with pytest.raises(ValueError, match=next(iter(options))):
        optim.OPTIMIZERS[name](0.1, **options)


def test_nesterov_with_dampening_is_refused() -> None:
    with pytest.raises(ValueError, match="nesterov"):
        optim.sgd(0.1, momentum=0.9, nesterov=True, dampening=0.1)


def test_a_group_keeps_norms_out_of_weight_decay() -> None:
    params = {
        "bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    }
    make = partial(optim.sgd, weight_decay=0.5, decay_mask=optim.all_but_norms)
    optimizer = optim.by_group(make, 1.0, params, factors={".*bias": 2.0})
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert {name: float(each["bias"][0]) for name, each in updates.items()} == {"bn": 0.0, "fc": -1.0}
