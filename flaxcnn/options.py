"""Options by name in a config: how they are written in flags, and given to a function that they are checked against."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from tyro.constructors import PrimitiveConstructorSpec

from flaxcnn.errors import ConfigError, did_you_mean

Value = bool | int | float | str | tuple[float, ...]


def _parse_options(words: list[str]) -> dict[str, Any]:
    """`stem 3x3 betas 0.9 0.95` to names and values; several numbers in a row are one value."""
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        if not name.isidentifier() or not rest:
            raise ValueError("write names and values with spaces between them, such as `NAME 0.1 NAME 3x3`")
        value = [_parse_value(rest.pop(0))]
        while rest and isinstance(number := _parse_value(rest[0]), (int, float)) and not isinstance(number, bool):
            value.append(number)
            rest.pop(0)
        values[name] = value[0] if len(value) == 1 else tuple(value)
    return values


def _parse_value(word: str) -> bool | int | float | str:
    if word in ("True", "False"):
        return word == "True"
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return word


def _show_options(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        words += [name, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


Options = Annotated[
    dict[str, Value],
    # tyro's own flags for a dictionary depend on what is in it by default.
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE ...]",
        instance_from_str=_parse_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_show_options,
    ),
]


def _parse_patterns(words: list[str]) -> dict[str, float]:
    """`fc 0 layer4 5` to patterns and numbers."""
    if len(words) % 2:
        raise ValueError("write patterns and numbers, such as `fc 0 layer4 5`")
    return {pattern: float(number) for pattern, number in zip(words[::2], words[1::2], strict=True)}


Patterns = Annotated[
    dict[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[PATTERN NUMBER ...]",
        instance_from_str=_parse_patterns,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_show_options,
    ),
]


def call_with_options(field: str, function: Callable[..., Any], options: Mapping[str, Any], *arguments: Any) -> Any:
    """Call a function with keyword options, each checked by name and type.

    Args:
        field: of the config, for messages.
        function: what of its keyword-only parameters can be written in a config is an option.
        options: by name.
        arguments: the function's positional ones.

    Returns:
        What the function returns.

    Raises:
        ConfigError: names the field and the option that is not right; also for the function's own ValueError.
    """
    title = (function.func if isinstance(function, partial) else function).__name__
    parameters = inspect.signature(function, eval_str=True).parameters
    known = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and _is_value(p.annotation)}
    values = {}
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"{field}: {title} has no {name!r}{did_you_mean(name, known)}")
        hint = known[name].annotation
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if hint is bool and not isinstance(value, bool):
            raise ConfigError(f"{field}: {name} must be True or False, not {value!r}")
        if hint is float and not is_number:
            raise ConfigError(f"{field}: {name} must be a number, not {value!r}")
        if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{field}: {name} must be a whole number, not {value!r}")
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ConfigError(f"{field}: {name} must be one of {', '.join(get_args(hint))}, not {value!r}")
        if get_origin(hint) is tuple:
            any_length = get_args(hint)[-1] is Ellipsis
            if any_length and is_number:
                value = (value,)
            if not isinstance(value, tuple) or (not any_length and len(value) != len(get_args(hint))):
                wanted = "numbers" if any_length else "a pair of numbers"
                raise ConfigError(f"{field}: {name} must be {wanted}, not {value!r}")
        values[name] = value
    missing = [name for name, p in known.items() if p.default is p.empty and name not in values]
    if missing:
        raise ConfigError(f"{field}: {title} needs {', '.join(missing)}")
    try:
        return function(*arguments, **values)
    except ValueError as error:
        raise ConfigError(f"{field}: {error}") from error


def _is_value(hint: Any) -> bool:
    """Whether an option of this type can be written in a config."""
    return hint in (bool, int, float, str) or get_origin(hint) in (tuple, Literal)
