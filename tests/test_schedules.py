"""Schedules in float32; against torch.optim.lr_scheduler they are tested in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import schedules


def rates_at(schedule: schedules.Schedule, counts) -> list[float]:
    return [float(schedule(count)) for count in counts]


def test_rates_in_float32_are_torchs() -> None:
    pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")
    from tests.schedules import PLAIN, TORCH_SCHEDULES, rates, torch_rates

    for case in PLAIN:
        schedule, make_scheduler, steps = TORCH_SCHEDULES[case]
        expected = torch_rates(make_scheduler, steps)
        np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=1e-7, err_msg=case)


def test_every_schedule_is_tested() -> None:
    pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")
    from tests.schedules import TORCH_SCHEDULES

    assert set(schedules.SCHEDULES) <= set(TORCH_SCHEDULES)


def test_cosine_stays_at_its_end() -> None:
    found = rates_at(schedules.cosine(0.3, 10), range(13))
    assert found[0] == pytest.approx(0.3)
    assert found[5] == pytest.approx(0.15)
    assert found[10:] == pytest.approx([0.0] * 3, abs=1e-8)


@pytest.mark.parametrize("total", [3, 7, 150])
def test_no_schedule_falls_below_its_end_by_rounding(total: int) -> None:
    """Compiled, a division by a constant is a product that can exceed 1: the root of what is left would be NaN."""
    rate = jax.jit(schedules.polynomial(0.3, total, power=0.5)).lower(jnp.int32(0))
    # The tests' programs are not optimised.
    assert rate.compile({"xla_backend_optimization_level": 3})(jnp.int32(total)) == 0.0


def test_a_decay_of_many_steps_keeps_its_digits() -> None:
    gamma = 0.99999
    assert float(schedules.exponential(1.0, 10**6, gamma=gamma)(450_000)) == pytest.approx(gamma**450_000, rel=1e-5)


def test_by_epoch_changes_between_epochs() -> None:
    schedule = schedules.by_epoch(schedules.exponential(1.0, 3, gamma=0.5), 4)
    assert rates_at(schedule, range(12)) == pytest.approx([1.0] * 4 + [0.5] * 4 + [0.25] * 4)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_even_rises_by_hand(length: int) -> None:
    found = rates_at(schedules.linear_warmup(schedules.constant(0.4, 9), length), range(9))
    assert found == pytest.approx([0.4 * min(i + 1, length) / length for i in range(9)])


def test_no_warmup_is_the_schedule_itself() -> None:
    schedule = schedules.constant(0.4, 9)
    assert schedules.linear_warmup(schedule, 0) is schedule
    assert schedules.constant_warmup(schedule, 0) is schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.step(0.1, 10, step_size=0), "step_size must be 1 or more, not 0"),
        (lambda: schedules.exponential(0.1, 10, gamma=-0.9), "gamma must be above 0, not -0.9"),
        (lambda: schedules.cosine(0.1, 10, eta_min=-1), "eta_min is a rate, and must be from 0 to 0.1, not -1"),
        (lambda: schedules.cosine_restarts(0.1, 10, T_0=0), "T_0 and T_mult must be 1 or more"),
        (lambda: schedules.one_cycle(0.1, 10, pct_start=1.5), "pct_start must be from 0 to 1"),
        (lambda: schedules.polynomial(0.1, 10, power=-1.0), "power must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
