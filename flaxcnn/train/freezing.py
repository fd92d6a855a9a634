"""Frozen parts of a network: constant parameters, and modules in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from flaxcnn.layers import BatchNorm

Mask = Any
"""A tree of the parameters' structure: whether each trains."""


def without_gradient(params: Any, mask: Mask) -> Any:
    """Make frozen parameters constants, so that no gradient of theirs is computed."""
    return jax.tree.map(lambda trains, p: p if trains else jax.lax.stop_gradient(p), mask, params)


def keep_frozen(mask: Mask, new: Any, old: Any) -> Any:
    """The new parameters, and the old ones where they are frozen."""
    return jax.tree.map(lambda trains, n, o: n if trains else o, mask, new, old)


def frozen_in_evaluation(mask: Mask) -> Any:
    """A context in which the frozen parts of a network that is applied with `train=True` compute as in evaluation.

    BatchNorm normalises with its running statistics, and keeps them, where neither its scale nor its bias trains.
    Dropout and stochastic depth do nothing within a module of which nothing trains.
    """
    training = {path[:n] for path, trains in flatten_dict(mask).items() if trains for n in range(len(path))}

    def intercept(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        module, is_call = context.module, context.method_name == "__call__"
        if is_call and isinstance(module, nn.Dropout) and module.path[:-1] not in training:
            return args[0]
        if is_call and isinstance(module, (BatchNorm, nn.BatchNorm)) and module.path not in training:
            # Said already where `nn.checkpoint` calls the interceptors a second time.
            return call(*args, **{**kwargs, "use_running_average": True})
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
