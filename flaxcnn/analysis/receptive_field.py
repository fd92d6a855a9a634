"""Which pixels of the image each unit of a feature map sees, followed through a traced network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var


class Axis(NamedTuple):
    """Along rows or columns, unit i sees the pixels from `first + i * jump` to `last + i * jump`."""

    first: int
    last: int
    jump: int

    @property
    def size(self) -> int:
        """Pixels that a unit sees, those of padding included."""
        return self.last - self.first + 1

    @property
    def centre(self) -> float:
        """The middle of what unit 0 sees, in pixels from the image's edge: 0.5 is the first pixel's own middle."""
        return (self.first + self.last + 1) / 2

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        """What the units see behind a window, `padding` being that in front of the first input."""
        first = self.first - padding * self.jump
        last = self.last + (dilation * (kernel - 1) - padding) * self.jump
        return Axis(first, last, self.jump * stride)


PIXELS = (Axis(0, 0, 1), Axis(0, 0, 1))
"""Of the image itself: each of its units sees one pixel."""

Field = tuple[Axis, Axis] | None
"""Of the units of a feature map, along rows and columns; None where every unit sees the whole image."""


def join(fields: list[Field]) -> Field:
    """Of what several branches meet in: the pixels that any of them sees.

    Where a map meets what was computed of the whole image, the map counts: that is the gate of squeeze-and-excitation,
    which says how much a channel matters and not where something is.

    Raises:
        ValueError: when the branches have other jumps, so that their units do not lie on top of one another.
    """
    maps = [field for field in fields if field is not None]
    if not maps:
        return None
    if len({(rows.jump, columns.jump) for rows, columns in maps}) > 1:
        raise ValueError(f"branches of different strides meet: {maps}")
    rows, columns = (
        Axis(min(axis.first for axis in axes), max(axis.last for axis in axes), axes[0].jump)
        for axes in zip(*maps, strict=True)
    )
    return rows, columns


def fields(jaxpr: ClosedJaxpr, images: Var) -> Iterator[tuple[JaxprEqn, Field]]:
    """Follow the receptive fields through a network.

    Args:
        jaxpr: of a network over images (n, h, w, c), its convolutions and pools lowered to XLA's own operations.
        images: which of the jaxpr's arguments these are.

    Yields:
        Each equation whose value depends on the images, those within calls too, and the field of its outputs.
    """
    yield from _follow(jaxpr.jaxpr, {images: PIXELS})


def _follow(jaxpr: Jaxpr, known: dict[Var, Field]) -> Iterator[tuple[JaxprEqn, Field]]:
    """Follow a jaxpr, adding to what is known of its variables."""
    for equation in jaxpr.eqns:
        inputs = [(v, known[v]) for v in equation.invars if isinstance(v, Var) and v in known]
        if not inputs:
            continue
        called = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        if called is not None:
            within: Jaxpr = getattr(called, "jaxpr", called)
            arguments = zip(within.invars, equation.invars, strict=True)
            inner = {own: known[given] for own, given in arguments if isinstance(given, Var) and given in known}
            yield from _follow(within, inner)
            own = zip(equation.outvars, within.outvars, strict=True)
            results = {out: inner[result] for out, result in own if isinstance(result, Var) and result in inner}
        else:
            field = _behind(equation, inputs)
            yield equation, field
            results = dict.fromkeys(equation.outvars, field)
        known.update(results)


def _behind(equation: JaxprEqn, inputs: list[tuple[Var, Field]]) -> Field:
    """The field of an operation's outputs."""
    operand, field = inputs[0]
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel = [_shape(equation.invars[1])[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
        return _through(field, kernel, params["window_strides"], params["padding"], params["rhs_dilation"])
    if name.startswith("reduce_window"):
        # Over all four axes, of which the middle two are rows and columns.
        return _through(field, *(params[of][1:3] for of in ("window_dimensions", "window_strides", "padding")))
    rows_and_columns = _shape(equation.outvars[0])[1:3]
    moves = name in ("transpose", "reshape", "dot_general", "reduce_sum", "reduce_max")
    if moves and not _keeps_places(equation, _shape(operand)):
        return None
    # What is left keeps the places of a map, or spreads what was computed of all of it over them.
    if any(field is not None and _shape(v)[1:3] != rows_and_columns for v, field in inputs):
        raise NotImplementedError(f"what {name} to shape {_shape(equation.outvars[0])} sees is not known")
    return join([field for _, field in inputs])


def _through(field: Field, kernel: Any, strides: Any, padding: Any, dilation: Any = (1, 1)) -> Field:
    if field is None:
        return None
    (rows, columns), ((top, _), (left, _)) = field, padding
    return (
        rows.through(kernel[0], strides[0], top, dilation[0]),
        columns.through(kernel[1], strides[1], left, dilation[1]),
    )


def _keeps_places(equation: JaxprEqn, shape: tuple[int, ...]) -> bool:
    """Whether rows and columns, the axes 1 and 2 of the first operand, are still what they were."""
    params = equation.params
    match equation.primitive.name:
        case "transpose":
            return tuple(params["permutation"][:3]) == (0, 1, 2)
        case "reshape":
            return len(shape) > 3 and _shape(equation.outvars[0])[:3] == shape[:3]
        case "dot_general":
            (contracted, _), (batch, _) = params["dimension_numbers"]
            return len(shape) > 3 and min(contracted) > 2 and not batch
        case _:
            return not {1, 2} & set(params["axes"])


def _shape(value: Any) -> tuple[int, ...]:
    """Of an operand or a result."""
    return value.aval.shape
