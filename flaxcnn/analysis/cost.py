"""What a network costs: parameters and multiply-adds, without computing anything."""

from __future__ import annotations

from typing import NamedTuple

from flaxcnn.analysis.summary import summarize
from flaxcnn.models import Classifier


class Cost(NamedTuple):
    """Of one image through a network in evaluation, or through a part of one."""

    parameters: int
    """Trainable numbers, those of auxiliary heads included."""
    macs: int
    """Multiply-adds of convolutions and fully connected layers."""


def cost(model: Classifier, *, image_size: int | None = None, channels: int = 3) -> Cost:
    """Count parameters and multiply-adds by tracing the network's shapes.

    Args:
        model: from `create_model`.
        image_size: height and width in pixels; None for the model's own.
        channels: of the image.

    Returns:
        The counts; normalisation, activations and pooling are not counted, as in the papers' tables.
    """
    summary = summarize(model, image_size=image_size, channels=channels)
    return Cost(summary.parameters, summary.macs)
