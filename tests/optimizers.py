"""Optimisers side by side with torch.optim. Imported only where torch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxcnn import optim

torch = pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from tests.schedules import RATE  # noqa: E402

# name, torch.optim's class, hyperparameters
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sgd": ("sgd", "SGD", {}),
    "sgd weight decay": ("sgd", "SGD", {"weight_decay": 0.05}),
    "sgd momentum": ("sgd", "SGD", {"momentum": 0.9, "weight_decay": 0.05}),
    "sgd nesterov": ("sgd", "SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "sgd dampening": ("sgd", "SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    "adagrad": ("adagrad", "Adagrad", {}),
    "adagrad decay": (
        "adagrad",
        "Adagrad",
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3, "weight_decay": 0.05},
    ),
    "rmsprop": ("rmsprop", "RMSprop", {}),
    "rmsprop momentum": ("rmsprop", "RMSprop", {"alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.05}),
    "rmsprop centered": ("rmsprop", "RMSprop", {"alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5}),
    "adam": ("adam", "Adam", {}),
    "adam weight decay": ("adam", "Adam", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}),
    "adam amsgrad": ("adam", "Adam", {"betas": (0.8, 0.9), "amsgrad": True, "weight_decay": 0.05}),
    "adamw": ("adamw", "AdamW", {}),
    "adamw weight decay": ("adamw", "AdamW", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
    "adamw amsgrad": ("adamw", "AdamW", {"betas": (0.8, 0.9), "amsgrad": True}),
    "adadelta": ("adadelta", "Adadelta", {}),
    "adadelta weight decay": ("adadelta", "Adadelta", {"rho": 0.8, "eps": 1e-3, "weight_decay": 0.05}),
    "adamax": ("adamax", "Adamax", {}),
    "adamax weight decay": ("adamax", "Adamax", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}),
    "nadam": ("nadam", "NAdam", {}),
    "nadam weight decay": ("nadam", "NAdam", {"betas": (0.8, 0.95), "momentum_decay": 0.1, "weight_decay": 0.05}),
    "nadam decoupled": ("nadam", "NAdam", {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    "radam": ("radam", "RAdam", {}),
    "radam weight decay": ("radam", "RAdam", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}),
    "radam decoupled": ("radam", "RAdam", {"weight_decay": 0.3, "decoupled_weight_decay": True}),
}


def swaying_rate(step: Any) -> Any:
    """A rate that no two steps share, and that the last steps feel as much as the first."""
    return 0.02 * (1 + 0.5 * jnp.sin(1.0 * step))  # the sine of an int32 is a float32


class Problem(NamedTuple):
    """Where the parameters start, and the gradient of a step here and in PyTorch."""

    start: dict[str, np.ndarray]
    gradients: Callable[[int, dict[str, Any]], dict[str, Any]]
    torch_gradients: Callable[[int, dict[str, Any]], dict[str, Any]]


def bowl(steps: int, dtype: str) -> Problem:
    """A bowl around 1, with noise. One of the parameters has no gradient for the first half, one has tiny ones."""
    random = np.random.default_rng(0)
    names = ("usual", "late", "tiny")
    start = {key: random.normal(size=(3, 2)).astype(dtype) for key in names}
    if dtype == "float32":  # from 0, so that how far a parameter got is not lost in the rounding of where it is
        start = jax.tree.map(np.zeros_like, start)
    noise = random.normal(size=(steps, 3, 3, 2)).astype(dtype)
    scale = np.ones((steps, 3, 1, 1), dtype)
    scale[: steps // 2, 1] = 0
    scale[:, 2] = 1e-6

    def gradients(array: Callable[[np.ndarray], Any], step: Any, values: dict[str, Any]) -> dict[str, Any]:
        n, s = array(noise)[step], array(scale)[step]
        return {key: (values[key] - 1 + n[i]) * s[i] for i, key in enumerate(names)}

    return Problem(start, jax.jit(partial(gradients, jnp.asarray)), partial(gradients, torch.tensor))


def network(steps: int, dtype: str) -> Problem:
    """A network of two layers on a handful of examples."""
    random = np.random.default_rng(0)
    shapes = {"w1": (5, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    start = {key: (0.5 * random.normal(size=shape)).astype(dtype) for key, shape in shapes.items()}
    x, labels = random.normal(size=(steps, 16, 5)).astype(dtype), random.integers(3, size=(steps, 16))

    @jax.jit
    @jax.grad
    def gradient(p: dict[str, Any], step: Any) -> Any:
        logits = jnp.tanh(jnp.asarray(x)[step] @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)[step]).mean()

    def torch_gradients(step: int, values: dict[str, Any]) -> dict[str, Any]:
        p = {key: value.requires_grad_() for key, value in values.items()}
        logits = torch.tanh(torch.tensor(x[step]) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[step]))
        return dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))

    return Problem(start, lambda step, p: gradient(p, step), torch_gradients)


PROBLEMS = {"bowl": bowl, "network": network}


def both(
    case: str,
    *,
    steps: int,
    rate: Callable[[Any], Any],
    dtype: str,
    problem: str = "bowl",
    undecayed: Sequence[str] = (),
    factors: Mapping[str, float] = MappingProxyType({}),
    make_scheduler: Callable[..., Any] | None = None,
) -> dict[str, float]:
    """Run a case here and in torch.optim.

    Args:
        case: one of `CASES`.
        steps: how many.
        rate: of a step.
        dtype: of the parameters.
        problem: one of `PROBLEMS`.
        undecayed: parameters without weight decay: masked here, groups of their own in PyTorch.
        factors: parameter -> factor on its rate: by groups here and in PyTorch.
        make_scheduler: torch's, of the same rates as `rate` from `RATE` on. None sets them by hand.

    Returns:
        Parameter -> the largest error over the steps, relative to how far the parameter got from its start (L2), at
        the furthest so far: some turn back, and pass where they came from.
    """
    name, torch_name, hyperparameters = CASES[case]
    start, gradients, torch_gradients = PROBLEMS[problem](steps, dtype)

    def mask(params: dict[str, Any]) -> dict[str, bool]:
        return {key: key not in undecayed for key in params}

    make = partial(optim.OPTIMIZERS[name], **hyperparameters, **({"decay_mask": mask} if undecayed else {}))
    ours = jax.tree.map(jnp.asarray, start)
    optimizer = optim.by_group(make, rate, ours, factors=factors) if factors else make(rate)
    state = optimizer.init(ours)
    theirs = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    groups: list[dict[str, Any]] = [{"params": [value], "name": key} for key, value in theirs.items()]
    for group in groups:
        if group["name"] in undecayed:
            group["weight_decay"] = 0.0
    for group in groups:
        group["lr"] = RATE * factors.get(group["name"], 1.0)
    reference = getattr(torch.optim, torch_name)(groups, **hyperparameters)
    scheduler = make_scheduler(reference) if make_scheduler else None

    @jax.jit
    def update(grads: Any, state: Any, params: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    rates = np.asarray(rate(jnp.arange(steps, dtype=jnp.int32)), np.float64)
    trail: dict[str, list[tuple[Any, Any]]] = {key: [] for key in start}
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))  # NAdam keeps a product of momenta in it
    for step in range(steps):
        ours, state = update(gradients(step, ours), state, ours)
        found = torch_gradients(step, {key: value.detach().clone() for key, value in theirs.items()})
        for key, value in theirs.items():
            value.grad = found[key]
        if scheduler is None:
            for group in reference.param_groups:
                group["lr"] = float(rates[step]) * factors.get(group["name"], 1.0)
        reference.step()
        if scheduler is not None:
            scheduler.step()
        for key, value in theirs.items():
            trail[key].append((np.asarray(ours[key]), value.detach().numpy().copy()))
    torch.set_default_dtype(before)
    return {key: _largest_error(start[key], *map(np.stack, zip(*trail[key], strict=True))) for key in start}


def _largest_error(start: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.dtype == theirs.dtype == start.dtype
    off, moved = (
        np.linalg.norm((a.astype(np.float64) - b).reshape(len(ours), -1), axis=1)
        for a, b in ((ours, theirs), (theirs, start))
    )
    return float((off / np.maximum(np.maximum.accumulate(moved), 1e-300)).max())
