"""BatchNorm against torch.nn.BatchNorm2d."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.layers import BatchNorm

torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")

CHANNELS = 5


def make_images(batch: int = 4, mean: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(0)
    return (mean + random.normal(size=(batch, 3, 4, CHANNELS)) * [1, 2, 3, 4, 5]).astype(np.float32)


def make_pair(momentum: float = 0.1, epsilon: float = 1e-5) -> tuple[dict, torch.nn.BatchNorm2d]:
    random = np.random.default_rng(1)
    scale, bias, mean, var = (random.uniform(0.5, 1.5, CHANNELS).astype(np.float32) for _ in range(4))
    reference = torch.nn.BatchNorm2d(CHANNELS, epsilon, momentum)
    values = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var}
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()}, strict=False)
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}, reference


def apply_torch(reference: torch.nn.BatchNorm2d, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("momentum", "epsilon"), [(0.1, 1e-5), (0.01, 1e-3)])
def test_training_and_evaluation(momentum: float, epsilon: float) -> None:
    variables, reference = make_pair(momentum, epsilon)
    images = make_images()
    fields = {"momentum": momentum, "epsilon": epsilon}
    evaluated = BatchNorm(use_running_average=True, **fields).apply(variables, images)
    np.testing.assert_allclose(evaluated, apply_torch(reference.eval(), images), rtol=0, atol=1e-5)

    trained, updates = BatchNorm(use_running_average=False, **fields).apply(variables, images, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, apply_torch(reference.train(), images), rtol=0, atol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], reference.running_mean, rtol=1e-5, atol=1e-6)
    # The unbiased variance: torch's differs from the biased one by 1/47 here.
    np.testing.assert_allclose(updates["batch_stats"]["var"], reference.running_var, rtol=1e-5)


def test_first_values() -> None:
    variables = BatchNorm(use_running_average=False).init(jax.random.key(0), make_images())
    jax.tree.map(
        np.testing.assert_array_equal,
        variables,
        {
            "params": {"scale": np.ones(CHANNELS), "bias": np.zeros(CHANNELS)},
            "batch_stats": {"mean": np.zeros(CHANNELS), "var": np.ones(CHANNELS)},
        },
    )


@pytest.mark.parametrize("mean", [300, 3000])
def test_digits_survive_a_large_mean(mean: float) -> None:
    """E[x^2] - E[x]^2 would lose them: at 3000 it is off by a tenth of the standard deviation."""
    images = make_images(mean=mean)
    variables, _ = make_pair()
    found, _ = BatchNorm(use_running_average=False).apply(variables, images, mutable=["batch_stats"])
    exact = images.astype(np.float64)
    normal = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    expected = normal * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_a_single_value_has_no_variance() -> None:
    variables, _ = make_pair()
    norm = BatchNorm(use_running_average=False)
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm.apply(variables, jnp.zeros((1, 1, 1, CHANNELS)), mutable=["batch_stats"])
    norm.apply(variables, jnp.zeros((2, 1, 1, CHANNELS)), mutable=["batch_stats"])
    assert BatchNorm(use_running_average=True).apply(variables, jnp.zeros((1, 1, 1, CHANNELS))).shape[-1] == CHANNELS


@pytest.mark.parametrize("shared", [True, False])
def test_statistics_across_devices(shared: bool) -> None:
    """With `axis_name`, two half batches are normalised as the whole one."""
    images = make_images(batch=4)
    variables, _ = make_pair()
    norm = BatchNorm(use_running_average=False, axis_name="devices" if shared else None)
    whole, updates = BatchNorm(use_running_average=False).apply(variables, images, mutable=["batch_stats"])

    def apply(images: jax.Array) -> tuple:
        return norm.apply(variables, images, mutable=["batch_stats"])

    halves, half_updates = jax.vmap(apply, axis_name="devices")(images.reshape(2, 2, *images.shape[1:]))
    same = np.allclose(halves.reshape(whole.shape), whole, rtol=0, atol=1e-5)
    same_var = np.allclose(half_updates["batch_stats"]["var"][0], updates["batch_stats"]["var"], rtol=1e-5)
    assert same == shared
    assert same_var == shared
    one_a_device = jax.vmap(apply, axis_name="devices") if shared else None
    if one_a_device:
        assert one_a_device(jnp.ones((2, 1, 1, 1, CHANNELS)))[0].shape == (2, 1, 1, 1, CHANNELS)


def test_bfloat16_keeps_float32_statistics() -> None:
    variables, _ = make_pair()
    images = make_images(mean=30)
    norm = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    found, updates = norm.apply(variables, jnp.asarray(images, jnp.bfloat16), mutable=["batch_stats"])
    assert found.dtype == jnp.bfloat16
    assert updates["batch_stats"]["var"].dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(images, jnp.bfloat16), np.float32)
    mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * rounded.mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], mean, rtol=1e-5)


def test_gradients() -> None:
    variables, reference = make_pair()
    images, weights = make_images(mean=2), make_images()

    def loss(params: dict, images: jax.Array) -> jax.Array:
        norm = BatchNorm(use_running_average=False)
        y, _ = norm.apply(variables | {"params": params}, images, mutable=["batch_stats"])
        return jnp.sum(y * weights)

    params, found = jax.grad(loss, argnums=(0, 1))(variables["params"], images)
    leaf = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    (reference.train()(leaf) * torch.from_numpy(weights.transpose(0, 3, 1, 2).copy())).sum().backward()
    expected = {"scale": reference.weight.grad, "bias": reference.bias.grad}
    for name, gradient in expected.items():
        np.testing.assert_allclose(params[name], gradient, rtol=1e-5, atol=1e-4, err_msg=name)
    assert leaf.grad is not None
    np.testing.assert_allclose(found, leaf.grad.permute(0, 2, 3, 1), rtol=0, atol=1e-5)


def test_every_derivative_is_that_of_the_formula() -> None:
    """Of all three results, and of second order, forward over reverse."""
    variables, _ = make_pair()
    images, weights = make_images(mean=2), make_images()

    def norm(params: dict, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        y, updates = BatchNorm(use_running_average=False, momentum=1).apply(
            variables | {"params": params}, images, mutable=["batch_stats"]
        )
        return y, updates["batch_stats"]["mean"], updates["batch_stats"]["var"]

    def formula(params: dict, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, var = jnp.mean(images, (0, 1, 2)), jnp.var(images, (0, 1, 2))
        scale, bias, along = params["scale"], params["bias"], (1, 1, 1, CHANNELS)
        y = (images - mean.reshape(along)) * (scale / jnp.sqrt(var + 1e-5)).reshape(along) + bias.reshape(along)
        return y, mean, var * 48 / 47

    def second(function):
        def loss(params: dict, images: jax.Array) -> jax.Array:
            y, mean, var = function(params, images)
            return jnp.sum(jnp.square(y) * weights) + jnp.sum(mean**3) + jnp.sum(jnp.sqrt(var))

        gradient = jax.grad(loss, argnums=(0, 1))
        primals = variables["params"], jnp.asarray(images)
        tangents = {"scale": jnp.arange(5.0), "bias": jnp.ones(5)}, jnp.asarray(weights[::-1])
        return jax.jvp(gradient, primals, tangents)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), second(norm), second(formula))
