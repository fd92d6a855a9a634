"""The composites, and the activations that models use, against torch and torchvision."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Sequential,
    SqueezeExcite,
    StochasticDepth,
    channel_shuffle,
    make_divisible,
)

_REASON = "PyTorch and torchvision are the reference (pip install 'flaxcnn[test]')"
torch = pytest.importorskip("torch", reason=_REASON)
torchvision = pytest.importorskip("torchvision", reason=_REASON)

EVALUATION = partial(BatchNorm, use_running_average=True)


def make_images(size: tuple[int, int] = (6, 7), channels: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, *size, channels)).astype(np.float32)


def to_nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def to_tensor(kernel: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(kernel).transpose(3, 2, 0, 1).copy())


def test_sequential_numbers_functions_too() -> None:
    layers = [partial(Conv, 4, 1), nn.relu, EVALUATION, partial(Conv, 2, 1)]
    variables = Sequential(layers).init(jax.random.key(0), make_images())
    assert set(variables["params"]) == {"0", "2", "3"}
    hidden = Conv(4, 1).apply({"params": variables["params"]["0"]}, make_images())
    hidden = BatchNorm(use_running_average=True).apply(
        {"params": variables["params"]["2"], "batch_stats": variables["batch_stats"]["2"]}, nn.relu(hidden)
    )
    expected = Conv(2, 1).apply({"params": variables["params"]["3"]}, hidden)
    np.testing.assert_allclose(Sequential(layers).apply(variables, make_images()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "fields", [{}, {"strides": 2}, {"groups": 4}, {"dilation": 2}, {"kernel_size": 5, "activation": None}], ids=str
)
def test_conv_norm_act(fields: dict) -> None:
    options = {"kernel_size": 3, **fields}
    module = ConvNormAct(12, norm=EVALUATION, **options)
    variables = module.init(jax.random.key(0), make_images())
    assert set(variables["params"]["0"]) == {"kernel"}
    renamed = {"strides": "stride", "activation": "activation_layer"}
    arguments = {renamed.get(name, name): value for name, value in options.items()}
    reference = torchvision.ops.Conv2dNormActivation(8, 12, **arguments).eval()
    with torch.no_grad():
        reference[0].weight.copy_(to_tensor(variables["params"]["0"]["kernel"]))
        expected = reference(to_nchw(make_images())).permute(0, 2, 3, 1)
    np.testing.assert_allclose(module.apply(variables, make_images()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_squeeze_excite(gate: str) -> None:
    gates = {"sigmoid": (jax.nn.sigmoid, torch.nn.Sigmoid), "hard_sigmoid": (jax.nn.hard_sigmoid, torch.nn.Hardsigmoid)}
    ours, theirs = gates[gate]
    module = SqueezeExcite(3, gate=ours)
    params = module.init(jax.random.key(0), make_images())["params"]
    reference = torchvision.ops.SqueezeExcitation(8, 3, scale_activation=theirs)
    with torch.no_grad():
        for name in ("fc1", "fc2"):
            getattr(reference, name).weight.copy_(to_tensor(params[name]["kernel"]))
            getattr(reference, name).bias.copy_(torch.from_numpy(np.array(params[name]["bias"])))
        expected = reference(to_nchw(make_images())).permute(0, 2, 3, 1)
    np.testing.assert_allclose(module.apply({"params": params}, make_images()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_channel_shuffle(groups: int) -> None:
    images = make_images()
    expected = torch.nn.functional.channel_shuffle(to_nchw(images), groups).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(channel_shuffle(jnp.asarray(images), groups), expected)


def test_stochastic_depth() -> None:
    """Whole examples, kept with probability 1 - rate and scaled up so that the mean stays."""
    ones = jnp.ones((4000, 2, 2, 3))
    drop = StochasticDepth(rate=0.25, deterministic=False)
    kept = drop.apply({}, ones, rngs={"dropout": jax.random.key(0)})
    by_example = np.asarray(kept).reshape(4000, -1)
    assert (by_example == by_example[:, :1]).all()
    np.testing.assert_allclose(np.unique(by_example), [0, 1 / 0.75], rtol=1e-6)
    # Five standard deviations of the mean of 4000.
    assert abs(by_example[:, 0].mean() - 1) < 5 * (0.25 / 0.75 / 4000) ** 0.5
    other = drop.apply({}, ones, rngs={"dropout": jax.random.key(1)})
    assert (other != kept).any()
    still = StochasticDepth(rate=0.25, deterministic=True)
    np.testing.assert_array_equal(still.apply({}, ones), ones)


ACTIVATIONS = {
    "relu": (nn.relu, torch.nn.functional.relu),
    "relu6": (jax.nn.relu6, torch.nn.functional.relu6),
    "silu": (jax.nn.silu, torch.nn.functional.silu),
    "sigmoid": (jax.nn.sigmoid, torch.sigmoid),
    "hard_sigmoid": (jax.nn.hard_sigmoid, torch.nn.functional.hardsigmoid),
    "hard_swish": (jax.nn.hard_swish, torch.nn.functional.hardswish),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_gradients_at_the_kinks(name: str) -> None:
    ours, theirs = ACTIVATIONS[name]
    x = np.array([-7, -3.5, -3, -2.5, -1, 0, 1, 2.5, 3, 3.5, 5.5, 6, 6.5, 7], np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    expected.sum().backward()
    np.testing.assert_allclose(ours(jnp.asarray(x)), expected.detach(), rtol=1e-6, atol=1e-6)
    gradient = jax.vmap(jax.grad(ours))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("divisor", [1, 4, 8])
def test_make_divisible(divisor: int) -> None:
    from torchvision.models._utils import _make_divisible

    for value in np.arange(1, 700, 0.7):
        assert make_divisible(value, divisor) == _make_divisible(value, divisor)
