"""Optimisers and schedules against PyTorch in float64: the same, and not just nearly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from flaxcnn import schedules
from tests.optimizers import CASES, PROBLEMS, both, swaying_rate
from tests.schedules import TORCH_SCHEDULES, rates, torch_rates

each_problem = pytest.mark.parametrize(
    "problem", [pytest.param(name, marks=pytest.mark.slow if name == "network" else ()) for name in PROBLEMS]
)


def assert_exact(errors: dict[str, float]) -> None:
    for key, error in errors.items():
        assert error <= 1e-9, f"{key} off by {error:.1e}"


@each_problem
@pytest.mark.parametrize("case", CASES)
def test_200_updates_are_torchs(case: str, problem: str) -> None:
    assert_exact(both(case, steps=200, rate=swaying_rate, dtype="float64", problem=problem))


GROUPS: dict[str, dict[str, Any]] = {
    "bowl": {"undecayed": ("usual",), "factors": {"usual": 0.5, "tiny": 2.0}},
    "network": {"undecayed": ("b1", "b2"), "factors": {"w1": 0.5, "b1": 0.5, "b2": 2.0}},
}


@each_problem
@pytest.mark.parametrize("case", [case for case, (_, _, options) in CASES.items() if "weight_decay" in options])
def test_groups_of_other_rates_and_without_weight_decay_are_torchs(case: str, problem: str) -> None:
    options = {"problem": problem, **GROUPS[problem]}
    assert_exact(both(case, steps=200, rate=swaying_rate, dtype="float64", **options))


@pytest.mark.parametrize("case", ["sgd nesterov", "adamw weight decay"])
@pytest.mark.parametrize("name", ["cosine, linear warm-up", "one_cycle"])
def test_200_updates_at_a_schedules_rates_are_torchs(case: str, name: str) -> None:
    schedule, make_scheduler, _ = TORCH_SCHEDULES[name]
    assert_exact(both(case, steps=200, rate=schedule, dtype="float64", make_scheduler=make_scheduler))


@pytest.mark.parametrize("case", TORCH_SCHEDULES)
def test_rates_are_torchs(case: str) -> None:
    schedule, make_scheduler, steps = TORCH_SCHEDULES[case]
    ours = rates(schedule, steps)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, torch_rates(make_scheduler, steps), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("case", TORCH_SCHEDULES)
def test_rates_by_epoch_are_torchs(case: str) -> None:
    schedule, make_scheduler, epochs = TORCH_SCHEDULES[case]
    ours = rates(schedules.by_epoch(schedule, 3), 3 * epochs)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, torch_rates(make_scheduler, 3 * epochs, steps_per_epoch=3), rtol=1e-9, atol=1e-15)
