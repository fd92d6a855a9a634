"""The error of weights that are not right."""

from __future__ import annotations

from flaxcnn.errors import UserError


class WeightsError(UserError):
    """Weights that do not fit a model, or a file that holds none."""
