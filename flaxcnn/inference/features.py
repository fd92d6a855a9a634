"""A network's inner activations, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array

from flaxcnn.errors import did_you_mean
from flaxcnn.models import Classifier, abstract_variables


def features(
    model: Classifier, variables: Mapping[str, Any], images: Array, names: Sequence[str] | None = None
) -> dict[str, Array]:
    """The outputs of modules inside a network, in evaluation.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        names: of modules, as PyTorch names them: `"layer3"`, `"layer1.0.conv2"`, and `""` for the network itself;
            None for all.

    Returns:
        name -> output, in the order of `names`; by itself the dictionary is a jittable function's result.

    Raises:
        ValueError: when the network has no such module; close matches are listed.
    """
    _, captured = model.apply(variables, images, train=False, capture_intermediates=True, mutable=["intermediates"])
    outputs: dict[tuple[str, ...], Any] = flatten_dict(captured["intermediates"])
    # The last part of a path is the method; a module's outputs are a tuple, one a call.
    found = {".".join(path[:-1]): calls[0] for path, calls in outputs.items()}
    for name in names or ():
        _check_name(model, name, found)
    return found if names is None else {name: found[name] for name in names}


def feature_maps(model: Classifier, images: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The modules whose outputs are pictures, and the shapes of these, found without computing.

    Args:
        model: from `create_model`.
        images: their shape (n, h, w, c).

    Returns:
        name -> (n, h, w, c), in the order in which the modules end: the last is the last map before the network pools.
    """
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str, output: Any) -> Any:
        if getattr(output, "ndim", 0) == 4 and output.shape[1] * output.shape[2] > 1:
            found.setdefault(name, output.shape)
        return output

    pictures = jax.ShapeDtypeStruct(images, jnp.float32)
    _, height, width, channels = images
    variables = abstract_variables(model, channels, (height, width))
    with _outputs_through(keep):
        jax.eval_shape(partial(model.apply, train=False), variables, pictures)
    return found


def logits_through(
    model: Classifier, variables: Mapping[str, Any], images: Array, layer: str, change: Callable[[Array], Array]
) -> Array:
    """The network's logits in evaluation, with the output of one module changed on the way.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        layer: name of the module.
        change: of its output, which keeps the shape.

    Returns:
        Logits (n, classes), differentiable.

    Raises:
        ValueError: when the network has no such module; close matches are listed.
    """
    names: set[str] = set()

    def changed(name: str, output: Any) -> Any:
        first_call = name not in names
        names.add(name)
        return change(output) if name == layer and first_call else output

    with _outputs_through(changed):
        logits: Any = model.apply(variables, images, train=False)
    _check_name(model, layer, names)
    return logits


def _outputs_through(function: Callable[[str, Any], Any]) -> Any:
    """While inside, the name and the output of every module go through a function."""

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        return function(".".join(context.module.path), output)

    return nn.intercept_methods(interceptor)


def _check_name(model: Classifier, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(f"{type(model).__name__} has no module {name!r}{did_you_mean(name, known)}")
