"""The errors of weights that are not right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flaxcnn.errors import UserError

_SHOWN = 3


class WeightsError(UserError):
    """Weights that do not fit a model, or a file that holds none."""


class KeysError(WeightsError):
    """Keys that do not fit a model.

    Args:
        problems: kind of problem -> what is to say of each key that has it. The message has all of it, and its one
            line for the terminal the first few of each kind.
    """

    def __init__(self, problems: Mapping[str, Sequence[str]]):
        self._problems = {kind: texts for kind, texts in problems.items() if texts}
        counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in self._problems.items())
        self._summary = f"the weights do not fit the model ({counts}): "
        super().__init__(self._summary + "; ".join(text for texts in self._problems.values() for text in texts))

    @property
    def line(self) -> str:
        """The message, shortened."""
        parts = []
        for kind, texts in self._problems.items():
            more = len(texts) - _SHOWN
            parts += [*texts[:_SHOWN], *([f"and {more} more {kind}"] if more > 0 else [])]
        return self._summary + "; ".join(parts)
