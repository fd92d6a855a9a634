"""What TensorBoard and Weights & Biases show of a training beside its records."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict

from flaxcnn.build import Experiment
from flaxcnn.cli.show_data import batch_figure
from flaxcnn.config import RESUMABLE, Config
from flaxcnn.data.check import class_counts
from flaxcnn.metrics import confusion_matrix
from flaxcnn.train import TrainState
from flaxcnn.train.run import flat
from flaxcnn.train.writers import Board
from flaxcnn.visual.evaluation import confusion_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLES = 24
_SHARE = 20  # the part of the training's time that pictures may take is one in so many


class Pictures:
    """Draws for boards: samples, confusions, and how parameters are distributed.

    Args:
        boards: to draw for; none, in all processes of a run but the first.
        config: of the training.
        experiment: what it describes.
    """

    def __init__(self, boards: Sequence[Board], config: Config, experiment: Experiment):
        self._boards, self._config, self._experiment = boards, config, experiment
        self._due = 0.0

    def begin(self, start: int) -> None:
        """Show how the training is configured and, once, its first images as it sees them.

        Args:
            start: step that it goes on from.
        """
        if not self._boards:
            return
        values = {name: _value(v) for name, v in flat(self._config.to_dict()).items() if name not in RESUMABLE}
        for board in self._boards:
            board.hyperparameters(values)
        if start:
            return
        train, held_out = self._experiment.train_source, self._experiment.val_source
        counts = {"training": class_counts(train), "held out": class_counts(held_out)}
        samples = batch_figure(self._config, train, self._experiment.train_transform, counts, images=_SAMPLES)
        self._show(0, "samples", samples)

    def evaluated(self, state: TrainState, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Show what an evaluation found; the last always, others where the drawing is cheap beside the training.

        Args:
            state: that was evaluated.
            predicted: classes (n,).
            labels: (n,), or (n, classes), of which there is no confusion matrix.
        """
        step, began = int(state.step), time.monotonic()
        if not self._boards or (began < self._due and step < self._experiment.schedule.total):
            return
        leaves: dict[tuple[str, ...], Any] = flatten_dict(state.params)
        arrays = {
            f"parameters/{'.'.join(path)}": np.asarray(leaf)
            for path, leaf in leaves.items()
            # Those that are split over hosts would have to be gathered first.
            if leaf.is_fully_replicated or leaf.is_fully_addressable
        }
        for board in self._boards:
            board.histograms(step, arrays)
        if labels.ndim == 1:
            names = self._experiment.val_source.class_names
            self._show(step, "confusion", confusion_figure(confusion_matrix(labels, predicted, len(names)), names))
        ended = time.monotonic()
        self._due = ended + _SHARE * (ended - began)

    def _show(self, step: int, name: str, figure: Figure) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        for board in self._boards:
            board.picture(step, name, pixels)


def _value(value: Any) -> bool | float | str:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
