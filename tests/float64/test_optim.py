"""Optimisers against torch.optim in float64: the same updates, and not just nearly."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch.optim is the reference (pip install 'flaxcnn[test]')")

from tests.optimizers import CASES, both, falling_rate


@pytest.mark.parametrize("case", CASES)
def test_200_updates_are_torchs(case: str) -> None:
    for ours, theirs in both(case, steps=200, rate=falling_rate, dtype="float64"):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
