"""The reference's logits, stored: numbers are guarded where PyTorch is not installed."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flaxcnn import create_model
from tests import golden


@pytest.mark.parametrize("name", golden.LOGIT_VARIANTS)
def test_logits_are_the_stored_ones(name: str) -> None:
    model = create_model(name, num_classes=10)
    variables, images = golden.deterministic(model, golden.LOGIT_VARIANTS[name])
    stored = np.asarray(golden.load_logits()[name])
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    error = np.abs(logits - stored).max() / np.abs(stored).max()
    assert error <= 1e-4, f"off by {error:.1e}. If that is meant: {golden.LOGITS_COMMAND}"
