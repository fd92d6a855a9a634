"""Model names and what they build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax.numpy as jnp
from jax.typing import DTypeLike

from flaxcnn.errors import did_you_mean
from flaxcnn.models.classifier import Classifier

_VARIANTS: dict[str, tuple[type[Classifier], Mapping[str, Any]]] = {}


def register(name: str, model: type[Classifier], **row: Any) -> None:
    """Make a variant known by name.

    Args:
        name: what `create_model` and the command line call it.
        model: the module's class.
        row: the fields that make this variant of it; `create_model` may override each.

    Raises:
        ValueError: when the name is taken, or a field is not one of the model's.
    """
    if name in _VARIANTS:
        raise ValueError(f"a model named {name!r} is registered already")
    unknown = row.keys() - set(_options(model))
    if unknown:
        raise ValueError(f"{model.__name__} has no field {sorted(unknown)[0]!r}")
    _VARIANTS[name] = (model, row)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models.

    Args:
        pattern: a shell pattern such as `"resnet*"`.

    Returns:
        The matching names, sorted.
    """
    return sorted(name for name in _VARIANTS if fnmatchcase(name, pattern))


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> Classifier:
    """Build a model by name. It holds no arrays; `init` makes its variables.

    Args:
        name: one of `list_models()`.
        num_classes: outputs; 0 returns pooled features.
        dtype: of the computation; None for the promoted type of images and parameters.
        param_dtype: of parameters and running statistics.
        options: other fields of the family's class, such as `dropout` or `stochastic_depth`.

    Returns:
        A `flax.linen.Module`, called as `model.apply(variables, images, train=...)`.

    Raises:
        ValueError: for an unknown name or option (close matches are listed) or a value out of range.
    """
    if name not in _VARIANTS:
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, _VARIANTS)}")
    model, row = _VARIANTS[name]
    known = _options(model)
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{did_you_mean(option, known)}")
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise ValueError(f"num_classes must be a whole number, 0 (pooled features) or more, not {num_classes!r}")
    for option, value in options.items():
        _check_value(option, value, get_type_hints(model)[option])
    return model(**{**row, **options, "num_classes": num_classes, "dtype": dtype, "param_dtype": param_dtype})


def _options(model: type[Classifier]) -> list[str]:
    return [field.name for field in fields(model) if field.name not in ("parent", "name")]


def _check_value(option: str, value: Any, hint: Any) -> None:
    """What Python itself would not notice, or only deep inside the network."""
    if option in ("dropout", "stochastic_depth") and not (isinstance(value, (int, float)) and 0 <= value < 1):
        raise ValueError(f"{option} must be a number in [0, 1), not {value!r}")
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ValueError(f"{option} must be one of {', '.join(get_args(hint))}, not {value!r}")
    if hint in (bool, int, float) and not isinstance(value, (int, float) if hint is float else hint):
        raise ValueError(f"{option} must be of type {hint.__name__}, not {value!r}")
