"""ReLU units by name, and the dead among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxcnn import create_model
from flaxcnn.inference import dead_units, features, make_fired_step, relu_outputs


@pytest.fixture(scope="module")
def lenet() -> tuple[Any, Any]:
    """Whose units fire or not by their biases alone."""
    model = create_model("lenet", num_classes=10)
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    params = {path: np.array(value) for path, value in flatten_dict(variables["params"]).items()}
    params["conv1", "bias"][:] = 5
    params["conv1", "bias"][[2, 7]] = -5
    params["fc2", "bias"][:] = 1e3
    params["fc2", "bias"][83] = -1e3
    return model, {"params": unflatten_dict(params)}


def test_units_that_fire_in_no_real_image_are_dead(lenet: Any) -> None:
    model, variables = lenet
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    padding = 1e4 * images  # would set off every unit of conv1
    step = jax.jit(make_fired_step(model))
    batches = [
        {"image": images, "mask": np.ones(4, np.float32)},
        {"image": np.concatenate([images[:1], padding[1:]]), "mask": np.array([1, 0, 0, 0], np.float32)},
    ]
    dead = dead_units(step, variables, batches)
    assert list(dead) == ["relu1", "relu2", "relu3", "relu4"]
    assert {name: units.shape for name, units in dead.items()} == {
        "relu1": (16,),
        "relu2": (32,),
        "relu3": (120,),
        "relu4": (84,),
    }
    assert np.flatnonzero(dead["relu1"]).tolist() == [2, 7]
    assert np.flatnonzero(dead["relu4"]).tolist() == [83]
    unmasked = [{**batch, "mask": np.ones(4, np.float32)} for batch in batches]
    assert not dead_units(step, variables, unmasked)["relu1"].any()


@pytest.mark.slow
def test_a_blocks_last_relu_is_its_output() -> None:
    model = create_model("resnet18", num_classes=10)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), images)

    def both(variables: Any) -> Any:
        return relu_outputs(model, variables, images), features(model, variables, images, ["layer1.0", "layer2.1"])

    relus, outputs = jax.jit(both)(variables)
    assert list(relus)[:3] == ["relu", "layer1.0.relu1", "layer1.0.relu2"]
    assert len(relus) == 17
    for block, output in outputs.items():
        np.testing.assert_array_equal(relus[f"{block}.relu2"], output)


@pytest.mark.parametrize(("name", "number"), [("efficientnet_lite0", 33), ("vgg11", 10), ("efficientnet_b0", 0)])
def test_all_are_found(name: str, number: int) -> None:
    model = create_model(name)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    assert len(jax.eval_shape(partial(relu_outputs, model), variables, images)) == number
