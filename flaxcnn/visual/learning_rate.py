"""The learning-rate range test as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw_range_test(rates: Sequence[float], losses: Sequence[float], chosen: float, path: Path) -> None:
    """Draw the loss against the learning rate.

    Args:
        rates: of each step.
        losses: smoothed, as many.
        chosen: rate to mark.
        path: of the PNG to write.
    """
    # The object-oriented face of matplotlib: no display, no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="#0072B2")
    axes.axvline(chosen, color="#D55E00", linestyle="--")
    axes.set_title(f"steepest at {chosen:.2g}", fontsize=10)
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
