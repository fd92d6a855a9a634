"""Every fresh parameter is drawn from the reference's distribution."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kurtosis

from flaxcnn import create_model, to_torch
from tests.references import torch, torch_reference
from tests.variants import PROBES, TRAINED_LONGER, small_size, variants_but_slow_beyond


@variants_but_slow_beyond(TRAINED_LONGER, among=PROBES)
def test_fresh_parameters(name: str) -> None:
    model = create_model(name, num_classes=100)
    images = jnp.zeros((1, *small_size(name), 3))
    # VGG's 130 million numbers are drawn six times as fast with a little of the compiler's optimisation.
    options = {"xla_backend_optimization_level": 1} if name.startswith("vgg") else None
    # Compiled, nothing is convolved: no parameter depends on it.
    init = jax.jit(partial(model.init, train=False), compiler_options=options)
    found = to_torch(model, init(jax.random.key(0), images))
    torch.manual_seed(0)
    for key, tensor in torch_reference(name, num_classes=100).state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        expected, values = tensor.double().numpy().ravel(), found[key].astype(np.float64).ravel()
        if np.ptp(expected) == 0:
            assert np.array_equal(values, expected), f"{key} must be {expected[0]}"
            continue
        # Six standard errors of either moment, or more: of 100 values, the deviation is known to 60 %.
        margin = 6 / np.sqrt(values.size)
        assert abs(values.mean() - expected.mean()) <= 1.5 * margin * expected.std(), f"mean of {key}"
        assert abs(values.std() / expected.std() - 1) <= margin, f"{key}: {values.std():.2g}, not {expected.std():.2g}"
        if values.size >= 5000:  # uniform: -1.2, normal: 0
            assert abs(kurtosis(values) - kurtosis(expected)) <= 0.6, f"{key} is of another distribution"
            if kurtosis(expected) < -1:
                bound, expected_bound = np.abs(values).max(), np.abs(expected).max()
                # Of n uniform values, the largest is below the bound by a share of about 1/n.
                assert abs(bound / expected_bound - 1) <= 20 / values.size, f"{key}: up to {bound}"
        elif key.endswith("bias"):  # all that are not constant are uniform, as torch's default is
            bound = 1 / np.sqrt(found[key.removesuffix("bias") + "weight"][0].size)
            assert np.abs(expected).max() <= bound, f"{key} of the reference: is it uniform?"
            assert 0.5 * bound <= np.abs(values).max() <= bound, f"{key}: up to {np.abs(values).max()}, not {bound}"
