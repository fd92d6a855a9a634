"""Optimisers and schedules against PyTorch in float64: the same, and not just nearly."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from flaxcnn import schedules
from tests.optimizers import CASES, PROBLEMS, both, falling_rate
from tests.schedules import TORCH_SCHEDULES, rates, torch_rates


@pytest.mark.parametrize(
    "problem", [pytest.param(name, marks=pytest.mark.slow if name == "network" else ()) for name in PROBLEMS]
)
@pytest.mark.parametrize("case", CASES)
def test_200_updates_are_torchs(case: str, problem: str) -> None:
    for ours, theirs in both(case, steps=200, rate=falling_rate, dtype="float64", problem=problem):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [case for case, (_, _, options) in CASES.items() if "weight_decay" in options])
def test_groups_of_other_rates_and_without_weight_decay_are_torchs(case: str) -> None:
    groups = {"undecayed": ("usual",), "factors": {"usual": 0.5, "tiny": 2.0}}
    for ours, theirs in both(case, steps=200, rate=falling_rate, dtype="float64", **groups):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


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
