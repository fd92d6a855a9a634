"""What a network looks at. The values are compared with PyTorch's, of every family, in `tests/float64`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import create_model
from flaxcnn.errors import UserError
from flaxcnn.inference import default_layer, feature_maps, grad_cam
from tests.variants import QUICK, small_size, variants_but_slow_beyond


@variants_but_slow_beyond({"lenet"}, among=QUICK)
def test_grad_cam_of_each_model(name: str) -> None:
    model = create_model(name, num_classes=10)
    size = max(small_size(name), (64, 64)) if name != "lenet" else (32, 32)
    images = jax.random.normal(jax.random.key(0), (2, *size, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), images)
    heat = np.asarray(jax.jit(partial(grad_cam, model))(variables, images, jnp.array([1, 2])))
    assert heat.shape == feature_maps(model, images.shape)[default_layer(model, images.shape)][:3]
    assert np.isfinite(heat).all()
    assert heat.min() >= 0


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lenet", "conv2"),
        ("vgg11", "features"),
        ("resnet18", "layer4"),
        ("googlenet", "inception5b"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("efficientnet_lite0", "blocks"),
    ],
)
def test_the_default_is_the_last_map(name: str, layer: str) -> None:
    model = create_model(name)
    assert default_layer(model, (1, model.image_size, model.image_size, 3)) == layer


def test_a_map_of_one_pixel_is_none() -> None:
    assert default_layer(create_model("resnet18"), (1, 32, 32, 3)) == "layer3"


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [("conv3", ValueError, "LeNet has no module 'conv3'"), ("fc1", UserError, "the output of 'fc1' is no map")],
)
def test_layers_that_will_not_do(layer: str, error: type[Exception], message: str) -> None:
    model, images = create_model("lenet"), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    classes = jax.ShapeDtypeStruct((1,), jnp.int32)
    with pytest.raises(error, match=message):
        jax.eval_shape(partial(grad_cam, model, layer=layer), variables, images, classes)
