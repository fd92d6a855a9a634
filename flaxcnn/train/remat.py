"""Gradient checkpointing: only the inputs of blocks are kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def rematerialized(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `apply` whose gradient computes again what is inside its blocks.

    A block is a module directly under the model, or under what only holds blocks there, as a `Sequential` does. Of a
    plain stack of layers these are the layers themselves, and little is gained.

    Args:
        apply: of a model.
    """

    def applied(*args: Any, **kwargs: Any) -> Any:
        inside = False

        def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            nonlocal inside
            if inside or context.method_name != "__call__" or not _is_block(context.module):
                return call(*args, **kwargs)
            inside = True
            try:
                return nn.checkpoint(type(context.module).__call__)(context.module, *args, **kwargs)
            finally:
                inside = False

        with nn.intercept_methods(intercept):
            return apply(*args, **kwargs)

    return applied


def _is_block(module: nn.Module) -> bool:
    """Whether it is a part of a network, or of one within it: of a head's backbone."""
    if _only_holds(module):
        return False
    parent = module.parent
    while isinstance(parent, nn.Module) and _only_holds(parent) and isinstance(parent.parent, nn.Module):
        parent = parent.parent
    return isinstance(parent, nn.Module) and not isinstance(parent.parent, nn.Module)


def _only_holds(module: nn.Module) -> bool:
    return getattr(type(module), "holds_blocks", False)
