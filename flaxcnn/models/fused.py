"""Inference without normalisation layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from flaxcnn.layers import BatchNorm, Conv
from flaxcnn.models.classifier import Classifier

Path = tuple[str, ...]


class Folded(NamedTuple):
    """A BatchNorm that a convolution has taken in."""

    conv: Path
    norm: Path
    epsilon: float


class Fused(Classifier, kw_only=True):
    """A network for evaluation, whose convolutions have taken in the BatchNorm that follows them.

    Attributes:
        model: the network. Its variables are this one's, but for those that normalisation alone needs.
        folded: what was taken in.
    """

    model: Classifier
    folded: tuple[Folded, ...]

    def setup(self) -> None:
        nn.share_scope(self, self.model)

    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Images (n, h, w, c) to logits (n, num_classes).

        Raises:
            ValueError: when `train` is True.
        """
        if train:
            raise ValueError("a fused model has no BatchNorm to train: use the model that it was fused from")
        norms = {folded.norm for folded in self.folded}

        def add_bias(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            norm = context.module
            if context.method_name != "__call__" or norm.path not in norms:
                return call(*args, **kwargs)
            (x,), bias = args, norm.get_variable("params", "bias")
            return (x + bias.reshape((1,) * (x.ndim - 1) + (-1,))).astype(canonicalize_dtype(x, bias, dtype=norm.dtype))

        with nn.intercept_methods(add_bias):
            return self.model(images, train=False)


def fuse(model: Classifier, variables: Mapping[str, Any], *, channels: int = 3) -> tuple[Fused, dict[str, Any]]:
    """Fold every BatchNorm that follows a convolution into its kernel and a bias, for evaluation.

    The logits are the same to rounding. Weights are saved, converted and trained on unfused.

    Args:
        model: from `create_model`.
        variables: its parameters and statistics.
        channels: of the images.

    Returns:
        A model that computes as `model` does with `train=False`, and the variables for it.
    """
    folded = _norms_after_convolutions(model, variables, channels)
    params: dict[Path, Any] = flatten_dict(variables["params"])
    statistics: dict[Path, Any] = flatten_dict(variables.get("batch_stats", {}))
    for conv, norm, epsilon in folded:
        var, mean = statistics.pop((*norm, "var")), statistics.pop((*norm, "mean"))
        factor = params.pop((*norm, "scale")) / jnp.sqrt(var + jnp.asarray(epsilon, var.dtype))
        params[*conv, "kernel"] = params[*conv, "kernel"] * factor.reshape(1, 1, 1, -1)
        if (*conv, "bias") in params:
            params[*conv, "bias"] = params[*conv, "bias"] * factor
        params[*norm, "bias"] = params[*norm, "bias"] - mean * factor
    fused = Fused(
        model=model,
        folded=tuple(folded),
        num_classes=model.num_classes,
        dtype=model.dtype,
        param_dtype=model.param_dtype,
        image_size=model.image_size,
        min_image_size=model.min_image_size,
    )
    return fused, {"params": unflatten_dict(params)} | (
        {"batch_stats": unflatten_dict(statistics)} if statistics else {}
    )


def _norms_after_convolutions(model: Classifier, variables: Mapping[str, Any], channels: int) -> list[Folded]:
    """Found by tracing: the norms whose input is, as an object, what a convolution has returned."""
    outputs: dict[int, tuple[Array, Path]] = {}  # by identity; the array is kept, so that its identity is its own
    folded = []

    def follow(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, Conv):
            outputs[id(output)] = output, context.module.path
        if context.method_name == "__call__" and isinstance(context.module, BatchNorm) and id(args[0]) in outputs:
            folded.append(Folded(outputs[id(args[0])][1], context.module.path, context.module.epsilon))
        return output

    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, channels), jnp.float32)
    with nn.intercept_methods(follow):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    return folded
