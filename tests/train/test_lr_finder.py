"""The range test on losses whose best rate is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flaxcnn.train.lr_finder import geometric, range_test, suggestion
from flaxcnn.visual.learning_rate import draw_range_test


def test_rates_grow_by_the_same_factor() -> None:
    rate = geometric(1e-4, 1.0, 5)
    assert [float(rate(count)) for count in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0], rel=1e-5)


def test_it_ends_where_the_loss_grows_or_is_no_number() -> None:
    def step(state: int, batch: float):
        return state + 1, {"loss": 2 * batch, "count": 2}

    assert range_test(step, 0, [3.0] * 7) == (pytest.approx([3.0] * 7), "")
    expected = pytest.approx([3.0, (0.9 * 3 + 2) / 1.9])
    assert range_test(step, 0, [3.0, 2.0, float("nan"), 1.0]) == (expected, "became nan")
    assert range_test(step, 0, [3.0, 2.0, float("inf"), 1.0]) == (expected, "became inf")
    losses, end = range_test(step, 0, [1.0] * 5 + [1e6] * 5)
    assert (len(losses), end) == (5, "grew fourfold")


def test_the_suggestion_is_where_the_loss_falls_steepest(tmp_path: Path) -> None:
    rates = list(np.geomspace(1e-5, 1, 101))
    losses = [2 - np.tanh(2 * (np.log10(rate) + 3)) for rate in rates]
    assert suggestion(rates, losses) == pytest.approx(1e-3)
    draw_range_test(rates, losses, 1e-3, tmp_path / "rate.png")
    assert (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")


def test_a_fall_after_a_jump_is_no_suggestion() -> None:
    rates = [10.0**power for power in range(-5, 2)]
    assert suggestion(rates, [2.3, 2.2, 1.8, 1.5, 2.0, 5.5, 4.0]) == 1e-3
