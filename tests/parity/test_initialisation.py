"""Fresh weights are drawn as the reference draws them: tensor by tensor, the same bounds, mean and deviation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn import create_model, to_torch
from tests.references import torch, torch_reference
from tests.variants import FAMILIES, TRAINED, every_variant_but_slow_beyond, small_size


@every_variant_but_slow_beyond(TRAINED.intersection(FAMILIES))
def test_distributions(name: str) -> None:
    torch.manual_seed(0)
    reference = torch_reference(name, num_classes=100).state_dict()
    model = create_model(name, num_classes=100)
    # This generator compiles ten times as fast as the default one.
    key = jax.random.key(0, impl="unsafe_rbg")
    images = jnp.zeros((1, *small_size(name), 3))
    ours = to_torch(model, jax.jit(lambda x: model.init(key, x, train=False))(images))
    for tensor, values in ours.items():
        expected = reference[tensor].numpy()
        deviation, n = expected.std(), expected.size
        if deviation == 0:
            np.testing.assert_array_equal(values, expected, err_msg=tensor)
            continue
        # Both are samples: five of their standard errors.
        error = abs(values.mean(dtype=np.float64) - expected.mean(dtype=np.float64)) / deviation
        assert error <= 5 * (2 / n) ** 0.5, f"{tensor}: mean {values.mean()}, not {expected.mean()}"
        error = abs(values.std(dtype=np.float64) / deviation - 1)
        assert error <= 5 / n**0.5, f"{tensor}: deviation {values.std()}, not {deviation}"
        if n >= 1000:
            # 1.73 for a uniform distribution, more than 3 for a normal one.
            extents = [float(np.abs(each).max() / each.std()) for each in (values, expected)]
            assert (extents[0] < 2) == (extents[1] < 2), f"{tensor}: reaches {extents[0]} deviations, not {extents[1]}"
