"""ReLU units, and those of them that never fire."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from flaxcnn.models import Classifier

_RELUS = ("relu", "relu6")


def relu_outputs(model: Classifier, variables: Mapping[str, Any], images: Array) -> OrderedDict[str, Array]:
    """The outputs of all ReLUs and ReLU6s of a network in evaluation, which are functions and no modules.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).

    Returns:
        name -> (n, ..., channels), in order. The name is the module's that applies it, `relu` for the network itself,
        and has a number where there are several: `layer1.0.relu2`.
    """
    program = jax.make_jaxpr(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
    calls = [equation for equation in program.jaxpr.eqns if _is_relu(equation)]
    scopes = [str(call.source_info.name_stack).split("/")[1:] for call in calls]
    jaxpr = program.jaxpr.replace(
        outvars=[call.outvars[0] for call in calls], debug_info=program.jaxpr.debug_info.with_unknown_names()
    )
    outputs = jaxpr_as_fun(ClosedJaxpr(jaxpr, program.consts))(*jax.tree.leaves((variables, images)))
    return OrderedDict(zip(_numbered(scopes), outputs, strict=True))  # jitted, a dict would be sorted


def _is_relu(equation: Any) -> bool:
    """Whether an equation calls `jax.nn.relu` or `relu6`: a function of custom derivative round a jitted one."""
    if str(equation.primitive) != "custom_jvp_call":
        return False
    return [inner.params.get("name") in _RELUS for inner in equation.params["call_jaxpr"].eqns] == [True]


def _numbered(scopes: list[list[str]]) -> list[str]:
    names = [".".join([*scope, "relu"]) for scope in scopes]
    several, seen = Counter(names), Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name}{seen[name]}" if several[name] > 1 else name)
    return numbered


def make_fired_step(model: Classifier) -> Callable[[Any, Mapping[str, Array]], dict[str, Array]]:
    """Make a pure function of variables and a padded batch (`image`, `mask`) to which ReLU units fire.

    Args:
        model: from `create_model`.

    Returns:
        A function to name -> bool (channels,): whether a channel is above 0 anywhere in a real image.
    """

    def step(variables: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
        def fired(output: Array) -> Array:
            real = (batch["mask"] > 0).reshape(-1, *[1] * (output.ndim - 1))
            return ((output > 0) & real).any(axis=tuple(range(output.ndim - 1)))

        return jax.tree.map(fired, relu_outputs(model, variables, batch["image"]))

    return step


def dead_units(
    step: Callable[[Any, Any], dict[str, Array]], variables: Any, batches: Iterable[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """The ReLU units that never fire over a data set.

    Args:
        step: from `make_fired_step`, jitted.
        variables: the model's.
        batches: padded and masked, as `flaxcnn.data.eval_batches` makes them; at least one.

    Returns:
        ReLU -> bool (channels,), True where dead; in the network's order.
    """
    fired: dict[str, Array] = {}
    for batch in batches:
        found = step(variables, batch)
        fired = {name: fired[name] | found[name] for name in found} if fired else found
    return {name: ~np.asarray(value) for name, value in fired.items()}
