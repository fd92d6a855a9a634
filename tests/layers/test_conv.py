"""Conv and Linear against torch.nn."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.layers import Conv, Linear

torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")


def to_torch_layout(kernel: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(kernel).transpose(3, 2, 0, 1).copy())


CASES = {
    "plain": {},
    "padded": {"padding": 1},
    "strided, even size": {"strides": 2, "padding": 1},
    "pair of each": {"kernel_size": (3, 5), "strides": (2, 1), "padding": (1, 2)},
    "dilated": {"kernel_dilation": 2, "padding": 2},
    "grouped": {"feature_group_count": 2},
    "depthwise": {"feature_group_count": 4, "strides": 2, "padding": 1},
    "depthwise multiplied": {"feature_group_count": 4, "features": 8, "padding": 1},
    "pointwise": {"kernel_size": 1, "strides": 2},
    "without bias": {"use_bias": False},
    "large and strided": {"kernel_size": 7, "strides": 4, "padding": 3},
}


@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
@pytest.mark.parametrize("case", CASES)
def test_conv(case: str, size: tuple[int, int]) -> None:
    fields = {"features": 4, "kernel_size": 3, **CASES[case]}
    random = np.random.default_rng(0)
    images = random.normal(size=(2, *size, 4)).astype(np.float32)
    conv = Conv(**fields)
    params = conv.init(jax.random.key(0), images)["params"]
    bias = None if "bias" not in params else torch.from_numpy(np.array(params["bias"]))
    expected = torch.conv2d(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        to_torch_layout(params["kernel"]),
        bias,
        fields.get("strides", 1),
        fields.get("padding", 0),
        fields.get("kernel_dilation", 1),
        fields.get("feature_group_count", 1),
    )
    found = conv.apply({"params": params}, images)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), rtol=0, atol=1e-5)


def test_padding_by_side_and_by_name() -> None:
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 9, 2)), jnp.float32)
    variables = Conv(3, 3).init(jax.random.key(0), images)
    by_side = Conv(3, 3, strides=2, padding=((0, 1), (2, 0))).apply(variables, images)
    padded = jnp.pad(images, ((0, 0), (0, 1), (2, 0), (0, 0)))
    np.testing.assert_array_equal(by_side, Conv(3, 3, strides=2).apply(variables, padded))
    # TensorFlow's rule: ceil(n / stride) outputs, the odd pixel of padding at the end.
    same = Conv(3, 3, strides=2, padding="SAME").apply(variables, images)
    padded = jnp.pad(images, ((0, 0), (0, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(same, Conv(3, 3, strides=2).apply(variables, padded))
    np.testing.assert_array_equal(
        Conv(3, 3, padding="VALID").apply(variables, images), Conv(3, 3).apply(variables, images)
    )


def test_conv_errors() -> None:
    images = jnp.zeros((1, 4, 5, 6))
    with pytest.raises(ValueError, match="groups=4 must divide both 6 input channels and 8 features"):
        Conv(8, 3, feature_group_count=4).init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="groups=3 must divide both 6 input channels and 8 features"):
        Conv(8, 3, feature_group_count=3).init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="an input of 4x5 pixels is too small for a 5x5 kernel"):
        Conv(8, 5).init(jax.random.key(0), images)
    for field, (value, message) in {
        "kernel_size": ((3,), r"kernel_size must be a whole number, 1 or more, or two for .*, not \(3,\)"),
        "strides": (None, "strides must be a whole number, 1 or more, .*, not None"),
        "kernel_dilation": (0, "kernel_dilation must be a whole number, 1 or more, .*, not 0"),
        "padding": ("CIRCULAR", "padding must be pixels, .* 'SAME' or 'VALID', not 'CIRCULAR'"),
        "features": (8.0, "features must be a whole number, 1 or more, not 8.0"),
        "feature_group_count": (0, "feature_group_count must be a whole number, 1 or more, not 0"),
    }.items():
        with pytest.raises(ValueError, match=message):
            Conv(**{"features": 8, "kernel_size": 3, field: value}).init(jax.random.key(0), images)
    for padding in (-1, None, (1, 1, 1), ((1, 1, 1), 1), ((1, -1), 1), 0.5):
        with pytest.raises(ValueError, match=rf"padding must be pixels, 0 or more.*, not {re.escape(repr(padding))}"):
            Conv(8, 3, padding=padding).init(jax.random.key(0), images)
    three = np.int64(3)
    outputs, _ = Conv(three, (three, three), padding=three).init_with_output(jax.random.key(0), images)
    assert outputs.shape == (1, 8, 9, 3)
    for wrong in (images[0], images[None]):
        with pytest.raises(ValueError, match=r"Conv takes images of shape \(n, h, w, c\), not \(.*; one image is x"):
            Conv(8, 3).init(jax.random.key(0), wrong)
    assert Conv(8, 5, padding=1).init_with_output(jax.random.key(0), images)[0].shape == (1, 2, 3, 8)


@pytest.mark.parametrize("layer", ["conv", "grouped conv", "linear"])
def test_default_initialisation_is_torchs(layer: str) -> None:
    """U(+-1/sqrt(fan_in)), kernel and bias: same bounds, same moments."""
    if layer == "linear":
        reference, module, inputs = torch.nn.Linear(300, 200), Linear(200), jnp.zeros((1, 300))
    else:
        groups = 4 if layer == "grouped conv" else 1
        reference = torch.nn.Conv2d(64, 96, (3, 5), groups=groups)
        module, inputs = Conv(96, (3, 5), feature_group_count=groups), jnp.zeros((1, 5, 5, 64))
    params = module.init(jax.random.key(0), inputs)["params"]
    for ours, theirs in [(params["kernel"], reference.weight), (params["bias"], reference.bias)]:
        bound = reference.weight[0].numel() ** -0.5
        assert ours.size == theirs.numel()
        assert np.abs(ours).max() <= bound
        assert theirs.abs().max() <= bound
        assert np.abs(ours).max() > bound * (1 - 10 / ours.size)
        assert abs(ours.mean()) < 5 * bound / (3 * ours.size) ** 0.5
        np.testing.assert_allclose(ours.std(), bound / 3**0.5, rtol=4 / ours.size**0.5)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5)])
def test_linear(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    linear = Linear(7)
    params = linear.init(jax.random.key(0), x)["params"]
    kernel, bias = torch.from_numpy(np.array(params["kernel"])), torch.from_numpy(np.array(params["bias"]))
    expected = torch.nn.functional.linear(torch.from_numpy(x), kernel.T, bias)
    np.testing.assert_allclose(linear.apply({"params": params}, x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("module", [Conv(4, 1), Linear(4)], ids=["conv", "linear"])
def test_dtypes(module: Conv | Linear) -> None:
    """Computes in the promoted type of input and parameters unless told; parameters stay as they are."""
    x = jnp.zeros((1, 2, 2, 3))
    variables = module.init(jax.random.key(0), x)
    assert module.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32
    half = module.clone(dtype=jnp.bfloat16)
    assert half.apply(variables, x).dtype == jnp.bfloat16
    assert half.init(jax.random.key(0), x)["params"]["kernel"].dtype == jnp.float32
