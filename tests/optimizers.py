"""Optimisers side by side with torch.optim. Imported only where torch is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxcnn import optim

torch = pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

# name, torch.optim's class, hyperparameters
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sgd": ("sgd", "SGD", {}),
    "sgd weight decay": ("sgd", "SGD", {"weight_decay": 0.05}),
    "sgd momentum": ("sgd", "SGD", {"momentum": 0.9, "weight_decay": 0.05}),
    "sgd nesterov": ("sgd", "SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "adagrad": ("adagrad", "Adagrad", {}),
    "adagrad decay": (
        "adagrad",
        "Adagrad",
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3, "weight_decay": 0.05},
    ),
    "rmsprop": ("rmsprop", "RMSprop", {}),
    "rmsprop momentum": ("rmsprop", "RMSprop", {"alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.05}),
    "adam": ("adam", "Adam", {}),
    "adam weight decay": ("adam", "Adam", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}),
    "adamw": ("adamw", "AdamW", {}),
    "adamw weight decay": ("adamw", "AdamW", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
}


def falling_rate(step: Any) -> Any:
    """A rate that no two steps share."""
    return 0.02 / (1 + step)


def both(case: str, *, steps: int, rate: Callable[[Any], Any], dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run a case here and in torch.optim.

    The gradients are those of a bowl around 1, with noise: they depend on the parameters, as in training. One of
    the parameters has none for the first half, one has tiny ones.

    Returns:
        Ours and torch's parameters, after every step.
    """
    name, torch_name, hyperparameters = CASES[case]
    random = np.random.default_rng(0)
    start = {key: random.normal(size=(3, 2)).astype(dtype) for key in ("usual", "late", "tiny")}
    noise = random.normal(size=(steps, 3, 3, 2)).astype(dtype)
    scale = np.ones((steps, 3, 1, 1), dtype)
    scale[: steps // 2, 1] = 0
    scale[:, 2] = 1e-6

    def gradients(step: int, values: list[Any], array: Callable[[np.ndarray], Any]) -> list[Any]:
        return [(v - 1 + array(n)) * array(s) for v, n, s in zip(values, noise[step], scale[step], strict=True)]

    optimizer = optim.OPTIMIZERS[name](rate, **hyperparameters)
    ours = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(ours)
    theirs = [torch.tensor(value, requires_grad=True) for value in start.values()]
    reference = getattr(torch.optim, torch_name)(theirs, lr=1.0, **hyperparameters)

    @jax.jit
    def update(grads: Any, state: Any, params: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    trail = []
    for step in range(steps):
        grads = dict(zip(start, gradients(step, [ours[key] for key in start], jnp.asarray), strict=True))
        ours, state = update(grads, state, ours)
        reference.param_groups[0]["lr"] = float(rate(step))
        for parameter, gradient in zip(
            theirs, gradients(step, [t.detach() for t in theirs], torch.tensor), strict=True
        ):
            parameter.grad = gradient
        reference.step()
        trail.append((np.stack([ours[key] for key in start]), np.stack([t.detach().numpy().copy() for t in theirs])))
    return trail
