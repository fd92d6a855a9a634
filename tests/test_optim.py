"""Optimisers and schedules against torch.optim, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from flaxcnn import optim

torch = pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from tests.optimizers import CASES, both, falling_rate  # noqa: E402


@pytest.mark.parametrize("case", CASES)
def test_updates_are_torchs(case: str) -> None:
    for ours, theirs in both(case, steps=20, rate=lambda step: 0.01, dtype="float32"):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_updates_are_torchs_at_a_changing_rate(case: str) -> None:
    for ours, theirs in both(case, steps=20, rate=falling_rate, dtype="float32"):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_every_optimizer_is_tested() -> None:
    assert {name for name, _, _ in CASES.values()} == set(optim.OPTIMIZERS)


def torch_rates(make_scheduler, rate: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def our_rates(schedule, steps: int) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.01), 0.3, 51)
    np.testing.assert_allclose(our_rates(optim.cosine(0.3, 50, final=0.01), 51), expected, rtol=1e-5)


def test_cosine_ends_at_zero_by_default_and_stays_there() -> None:
    rates = our_rates(optim.cosine(0.3, 10), 13)
    assert rates[0] == pytest.approx(0.3)
    assert rates[5] == pytest.approx(0.15)
    assert rates[10:] == pytest.approx([0.0] * 3, abs=1e-8)


def test_exponential_is_torchs_step_lr() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=7, gamma=0.97), 0.3, 40)
    np.testing.assert_allclose(our_rates(optim.exponential(0.3, 40, gamma=0.97, every=7.0), 40), expected, rtol=1e-5)


def test_constant() -> None:
    assert our_rates(optim.constant(0.3, 5), 7) == pytest.approx([0.3] * 7)


def test_warmup_is_torchs_linear_lr_before_the_schedule() -> None:
    def scheduler(optimizer):
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        return torch.optim.lr_scheduler.SequentialLR(
            optimizer, [rise, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)], milestones=[5]
        )

    schedule = optim.warmup(optim.cosine(0.3, 20), 5)
    np.testing.assert_allclose(our_rates(schedule, 25), torch_rates(scheduler, 0.3, 25), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_warmup_by_hand(steps: int) -> None:
    rates = our_rates(optim.warmup(optim.constant(0.4, 9), steps), 9)
    assert rates == pytest.approx([0.4 * min(i + 1, steps) / steps for i in range(9)])


def test_no_warmup_is_the_schedule_itself() -> None:
    schedule = optim.constant(0.4, 9)
    assert optim.warmup(schedule, 0) is schedule


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
    ],
)
def test_what_torch_refuses_is_refused(name: str, options: dict) -> None:
    torch_class = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}[name]
    with pytest.raises(ValueError):
        getattr(torch.optim, torch_class)([torch.zeros(1)], lr=0.1, **options)
    with pytest.raises(ValueError, match=next(iter(options))):
        optim.OPTIMIZERS[name](0.1, **options)


def test_schedules_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="every must be 1 step or more, not 0"):
        optim.exponential(0.1, 10, gamma=0.9, every=0)
    with pytest.raises(ValueError, match="gamma must be 0 or more"):
        optim.exponential(0.1, 10, gamma=-0.9, every=1)
    with pytest.raises(ValueError, match="final must be 0 or more"):
        optim.cosine(0.1, 10, final=-1)
