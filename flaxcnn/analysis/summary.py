"""A network layer by layer: shapes, costs and receptive fields, without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import JaxprEqn

from flaxcnn.analysis.receptive_field import Axis, Field, fields
from flaxcnn.layers import Conv, Linear, conv_lowering
from flaxcnn.layers.conv import as_pair
from flaxcnn.models import Classifier, abstract_variables

Pair = tuple[int, int]


class Layer(NamedTuple):
    """One layer, for one image. Pairs are of rows and columns."""

    name: str
    """As PyTorch names the module; of a pool, that of the module around it and what it is."""
    kind: str
    """The module's class, or `max_pool`, `avg_pool`, `global_pool`."""
    output: tuple[int, ...]
    """(h, w, c), or (features,)."""
    kernel: Pair | None
    stride: Pair | None
    parameters: int
    """Trainable numbers."""
    macs: int
    """Multiply-adds; those of normalisation and pools are not counted, as in the papers' tables."""
    activation_bytes: int
    """Of the output."""
    field: Field
    """What a unit of the output sees; None is the whole image."""


class Summary(NamedTuple):
    """A network, for one image of a size in evaluation."""

    image_size: int
    parameters: int
    """Trainable numbers, those of auxiliary heads included, which no layer here has."""
    macs: int
    """Multiply-adds of convolutions and fully connected layers."""
    activation_bytes: int
    """Of all layers' outputs: about what training keeps of an image for the backward pass."""
    layers: list[Layer]
    """In the order they are computed in."""


def summarize(model: Classifier, *, image_size: int | None = None, channels: int = 3) -> Summary:
    """Describe a network by tracing it with shapes: no weights are made.

    Layers are the modules that have parameters, and the pools. Receptive fields are the theoretical ones: where
    branches meet, the pixels that any of them sees; padding is seen too, so that a field may be larger than the image;
    the gates of squeeze-and-excitation are left out; behind a global pool, and where a map is flattened or pooled to a
    fixed grid, a unit sees the whole image.

    Args:
        model: from `create_model`.
        image_size: height and width in pixels; None for the model's own.
        channels: of the image.

    Returns:
        Layers and totals.

    Raises:
        ValueError: when the network cannot compute such images.

    Reference: Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
    """
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    variables = abstract_variables(model, channels, size)
    seen: list[Layer] = []

    def mark(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        """Note a layer, and leave its number in the trace, where its output is."""
        output = call(*args, **kwargs)
        own = context.module.variables.get("params", {})
        if context.method_name != "__call__" or not any(isinstance(leaf, jax.Array) for leaf in own.values()):
            return output
        seen.append(_layer(context.module, own, output))
        return checkpoint_name(output, str(len(seen) - 1))

    with nn.intercept_methods(mark), conv_lowering("xla"):
        jaxpr = jax.make_jaxpr(partial(model.apply, train=False))(variables, images)
    layers = []
    for equation, field in fields(jaxpr, jaxpr.jaxpr.invars[-1]):
        layer = seen[int(equation.params["name"])] if equation.primitive.name == "name" else _pool(equation)
        if layer is not None:
            layers.append(layer._replace(field=field))
    return Summary(
        size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        layers=layers,
    )


def _layer(module: nn.Module, parameters: Any, output: jax.Array) -> Layer:
    """A module with parameters of its own; its field is not known yet."""
    is_conv = isinstance(module, Conv)
    kernel = parameters.get("kernel")
    return Layer(
        name=".".join(module.path),
        kind=type(module).__name__,
        output=output.shape[1:],
        kernel=as_pair(module.kernel_size, "kernel_size") if is_conv else None,
        stride=as_pair(module.strides, "strides") if is_conv else None,
        parameters=sum(leaf.size for leaf in parameters.values()),
        macs=output.size * kernel.size // kernel.shape[-1] if isinstance(module, (Conv, Linear)) else 0,
        activation_bytes=output.size * output.dtype.itemsize,
        field=None,
    )


_POOLS = {"reduce_window_max": "max_pool", "reduce_window_sum": "avg_pool", "reduce_sum": "global_pool"}


def _pool(equation: JaxprEqn) -> Layer | None:
    """The pool that an equation computes, or None."""
    kind, params = _POOLS.get(equation.primitive.name), equation.params
    images: Any = equation.invars[0].aval
    output: Any = equation.outvars[0].aval
    if kind is None or (kind == "global_pool" and tuple(params["axes"]) != (1, 2)):
        return None
    _, *path = str(equation.source_info.name_stack).split("/")  # the first is the network's class
    windowed = kind != "global_pool"
    return Layer(
        name=".".join([*path, kind]),
        kind=kind,
        output=output.shape[1:],
        kernel=params["window_dimensions"][1:3] if windowed else images.shape[1:3],
        stride=params["window_strides"][1:3] if windowed else None,
        parameters=0,
        macs=0,
        activation_bytes=output.size * output.dtype.itemsize,
        field=None,
    )


def to_dict(summary: Summary) -> dict[str, Any]:
    """A summary as JSON knows it, with `receptive_field`, `jump` and `centre`: null is the whole image."""

    def of(layer: Layer) -> dict[str, Any]:
        values = layer._asdict()
        field = values.pop("field")

        def pair(get: Callable[[Axis], float]) -> list[float] | None:
            return None if field is None else [get(axis) for axis in field]

        return {
            **values,
            "receptive_field": pair(lambda axis: axis.size),
            "jump": pair(lambda axis: axis.jump),
            "centre": pair(lambda axis: axis.centre),
        }

    return {**summary._asdict(), "layers": [of(layer) for layer in summary.layers]}
