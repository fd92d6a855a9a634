"""Inner activations by PyTorch's names. Their values are compared with PyTorch's in `tests/float64`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import create_model
from flaxcnn.inference import features

IMAGES = jnp.ones((2, 32, 32, 3))


@pytest.fixture(scope="module")
def lenet():
    model = create_model("lenet", num_classes=10)
    return model, jax.jit(partial(model.init, train=False))(jax.random.key(0), IMAGES)


def test_all_and_by_name(lenet) -> None:
    model, variables = lenet
    found = features(model, variables, IMAGES)
    assert {name: output.shape for name, output in found.items()} == {
        "conv1": (2, 28, 28, 16),
        "conv2": (2, 10, 10, 32),
        "fc1": (2, 120),
        "fc2": (2, 84),
        "fc3": (2, 10),
        "": (2, 10),
    }
    np.testing.assert_array_equal(found[""], model.apply(variables, IMAGES, train=False))
    chosen = features(model, variables, IMAGES, ["fc1", "conv2"])
    assert list(chosen) == ["fc1", "conv2"]
    np.testing.assert_array_equal(chosen["conv2"], found["conv2"])


def test_unknown_name(lenet) -> None:
    with pytest.raises(ValueError, match=r"LeNet has no module 'conv3'.*conv"):
        features(*lenet, IMAGES, ["fc1", "conv3"])
