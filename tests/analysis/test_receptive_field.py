"""Receptive fields against what light on one row of the image reaches, and a table worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flaxcnn import create_model
from flaxcnn.analysis import receptive_field, summarize
from flaxcnn.analysis.receptive_field import PIXELS, fields
from flaxcnn.layers import Conv, SqueezeExcite, avg_pool, conv_lowering, global_avg_pool, max_pool, pooling
from flaxcnn.models import Classifier
from tests.variants import FAMILIES, variants_but_slow_beyond

# Heads that fix the image size, or are for training, are left out.
OPTIONS: dict[str, dict[str, Any]] = {"inception_v1": {"aux_heads": False}, "googlenet": {"aux_heads": False}}
ROWS = 150
"""Of the image, where parameters do not fix it: layers that see more are compared as far as it reaches."""


def positive(model: Classifier, images: jax.ShapeDtypeStruct) -> Any:
    """Averaging kernels, no biases, and normalisation that does nothing: what is dark stays dark, and light stays."""
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        value = {"kernel": 1 / np.prod(leaf.shape[:-1]), "scale": 1.0, "var": 1.0}.get(name, 0.0)
        return np.full(leaf.shape, value, np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def lit(model: Classifier, image_size: tuple[int, int], axis: int) -> dict[str, np.ndarray]:
    """Layer -> (image, unit): which units along an axis an image with a single row or column of light reaches."""
    rows = image_size[axis]
    images = np.zeros((rows, *image_size, 3), np.float32)
    np.moveaxis(images, axis + 1, 1)[np.arange(rows), np.arange(rows)] = 1
    variables = positive(model, jax.ShapeDtypeStruct(images.shape, jnp.float32))
    reached = {}

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, SqueezeExcite):  # whose gate would see everything
            return args[0]
        output = call(*args, **kwargs)
        if isinstance(context.module, Conv):
            reached[".".join(context.module.path)] = (output > 0).any(axis=(3, 2 - axis))
        return output

    # VGG's weights must be arguments: as constants of the program, XLA loses some of their half gigabyte.
    def apply(variables: Any, images: Any) -> Any:
        reached.clear()
        with nn.intercept_methods(watch):
            model.apply(variables, images, train=False)
        return dict(reached)

    with conv_lowering("xla"):
        return jax.tree.map(np.asarray, jax.jit(apply)(variables, images))


@pytest.fixture
def averaging_max_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """A maximum passes only the brightest on: for what a window sees, its sum will do."""

    def total(windows: Any, x: jax.Array) -> jax.Array:
        size, strides, padding = (1, *windows.size, 1), (1, *windows.strides, 1), ((0, 0), *windows.padding, (0, 0))
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, size, strides, padding)

    monkeypatch.setattr(pooling, "_max_pool_xla", total)


@pytest.mark.usefixtures("averaging_max_pools", "forget_programs_after")
@variants_but_slow_beyond({"lenet", "shufflenet_v2_x0_5"}, among=FAMILIES)
def test_what_a_row_of_light_reaches(name: str) -> None:
    """For every convolution, and each of its units: no more and no fewer rows than the field says."""
    model = create_model(name, num_classes=0, **OPTIONS.get(name, {}))
    fixed = name in ("lenet", "alexnet_half")
    rows = model.image_size if fixed else max(ROWS, model.min_image_size)
    others = rows if fixed else max(model.min_image_size, 1)
    reached = lit(model, (rows, others), axis=0)
    compared, pixels = 0, np.arange(rows)[:, None]
    for layer in summarize(model, image_size=rows).layers:
        if layer.kind != "Conv" or layer.field is None:
            continue
        axis, found = layer.field[0], reached[layer.name]
        first = axis.first + axis.jump * np.arange(found.shape[1])
        np.testing.assert_array_equal(found, (pixels >= first) & (pixels < first + axis.size), err_msg=layer.name)
        compared += axis.size < rows
    assert compared >= 2


@pytest.mark.usefixtures("averaging_max_pools")
def test_rows_and_columns_apart() -> None:
    class Oblong(Classifier, kw_only=True):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            x = Conv(2, (1, 7), strides=(1, 2), padding=(0, 3), name="wide")(images)
            x = max_pool(x, 3, 2, 1)
            return global_avg_pool(Conv(2, (5, 1), padding=((3, 0), 0), kernel_dilation=(2, 1), name="tall")(x))

    model = Oblong()
    for axis, (name, size, jump) in (
        (0, ("tall", 19, 2)),
        (1, ("tall", 11, 4)),
        (0, ("wide", 1, 1)),
        (1, ("wide", 7, 2)),
    ):
        layer = next(layer for layer in summarize(model, image_size=40).layers if layer.name == name)
        assert layer.field is not None
        assert (layer.field[axis].size, layer.field[axis].jump) == (size, jump)
        found = lit(model, (40, 40), axis)[name]
        unit = found.shape[1] // 2
        seen = np.flatnonzero(found[:, unit])  # with gaps, where a kernel is dilated
        first = layer.field[axis].first + unit * jump
        assert (seen.min(), seen.max()) == (first, first + size - 1)


def test_alexnet_by_hand() -> None:
    """As it is taught: kernel, stride and padding of each layer, and what follows from them."""
    layers = summarize(create_model("alexnet")).layers
    found = [
        (layer.name, layer.output[0], layer.kernel[0], layer.stride[0], a.size, a.jump, a.centre)
        for layer in layers
        if layer.kernel and layer.stride and layer.field
        for a in layer.field[:1]
    ]
    assert found == [
        ("features.0", 55, 11, 4, 11, 4, 3.5),  # (224 - 11 + 4) / 4 + 1; from pixel -2 to 8
        ("features.max_pool", 27, 3, 2, 19, 8, 7.5),  # 11 + 2 * 4
        ("features.3", 27, 5, 1, 51, 8, 7.5),  # 19 + 4 * 8
        ("features.max_pool", 13, 3, 2, 67, 16, 15.5),  # 51 + 2 * 8
        ("features.6", 13, 3, 1, 99, 16, 15.5),  # 67 + 2 * 16
        ("features.8", 13, 3, 1, 131, 16, 15.5),
        ("features.10", 13, 3, 1, 163, 16, 15.5),
        ("features.max_pool", 6, 3, 2, 195, 32, 31.5),
    ]
    # The course's recursion, from the last layer to the first.
    assert receptive_field([(kernel, stride) for _, _, kernel, stride, *_ in found]) == 195
    assert [layer.field for layer in layers[-3:]] == [None] * 3
    assert (
        sum(layer.parameters for layer in layers[-3:]) == 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    )


@pytest.mark.parametrize(
    ("name", "last", "field"),  # as Araujo et al. list them, whose VGG and ResNet are built alike
    [
        ("vgg16", "features.max_pool", 212),
        ("mobilenet_v1", "blocks.4.1.conv_pw", 315),
        ("alexnet", "features.max_pool", 195),
    ],
)
def test_published_fields(name: str, last: str, field: int) -> None:
    layer = next(layer for layer in reversed(summarize(create_model(name)).layers) if layer.name == last)
    assert layer.field is not None and layer.field[0].size == field


def test_gates_and_maps() -> None:
    """A gate is left out, a 1x1 layer keeps its place, and what is flattened sees everything."""

    def network(images: jax.Array) -> tuple[jax.Array, ...]:
        x = avg_pool(images, 3, 1, 1)
        gated = x * jax.nn.sigmoid(x.mean(axis=(1, 2), keepdims=True))
        mixed = jnp.dot(gated, jnp.ones((4, 4)))
        return gated, mixed, mixed.transpose(0, 3, 1, 2).reshape(1, -1), jnp.concatenate([images, x], axis=-1)

    with conv_lowering("xla"):
        jaxpr = jax.make_jaxpr(network)(jnp.zeros((1, 4, 4, 4)))
    of = {id(out): field for equation, field in fields(jaxpr, jaxpr.jaxpr.invars[0]) for out in equation.outvars}
    gated, mixed, flat, joined = (of[id(out)] for out in jaxpr.jaxpr.outvars)
    window = (PIXELS[0].through(3, 1, 1),) * 2
    assert (gated, mixed, flat, joined) == (window, window, None, window)


def test_what_cannot_be_followed_is_said() -> None:
    jaxpr = jax.make_jaxpr(lambda x: x[:, ::2])(jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(NotImplementedError, match="slice"):
        list(fields(jaxpr, jaxpr.jaxpr.invars[0]))
    with conv_lowering("xla"):
        jaxpr = jax.make_jaxpr(lambda x: avg_pool(x, 1, 2) + max_pool(x, 1, 1)[:, :2, :2])(jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(NotImplementedError, match="slice"):
        list(fields(jaxpr, jaxpr.jaxpr.invars[0]))
