"""What an evaluation found, example by example and class by class, as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxcnn.config import ConfigError
from flaxcnn.data import Source
from flaxcnn.metrics import (
    average_precision,
    calibration,
    class_scores,
    confused_pairs,
    confusion_matrix,
    multilabel_class_scores,
)
from flaxcnn.visual.evaluation import confusion_figure, reliability_figure
from flaxcnn.visual.grid import grid_figure

_MISTAKES = 40
_PAIRS = 100
_THUMBNAIL = 160  # pixels


class Details:
    """A folder of what an evaluation found.

    Args:
        folder: is made; files there are replaced.

    Raises:
        ConfigError: when it cannot be made.
    """

    def __init__(self, folder: str):
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--details: cannot write {folder}: {error.strerror}") from error

    def write(
        self,
        result: Mapping[str, float],
        source: Source,
        logits: np.ndarray,
        probabilities: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Write all files.

        Args:
            result: of the evaluation.
            source: of its examples.
            logits: (n, classes).
            probabilities: likewise.
            labels: class indices (n,), or whether each class is there (n, classes).
        """
        write = self._write_exclusive if labels.ndim == 1 else self._write_multilabel
        ece = write(source, logits, probabilities, labels)
        (self._folder / "summary.json").write_text(json.dumps({**result, "ece": ece}, indent=2) + "\n")

    def _write_exclusive(
        self, source: Source, logits: np.ndarray, probabilities: np.ndarray, labels: np.ndarray
    ) -> float:
        names, rows = source.class_names, np.arange(len(labels))
        predicted = logits.argmax(axis=1)
        confidence, of_label = probabilities[rows, predicted], probabilities[rows, labels]
        confusion = confusion_matrix(labels, predicted, len(names))
        self._csv(
            "predictions",
            ["example", "label", "predicted", "probability", "label_probability"],
            (
                [source.key(i), names[labels[i]], names[predicted[i]], f"{confidence[i]:.6g}", f"{of_label[i]:.6g}"]
                for i in rows.tolist()
            ),
        )
        self._scores(names, class_scores(confusion)._asdict())
        self._csv("confusion", ["label", *names], ([name, *row] for name, row in zip(names, confusion, strict=True)))
        self._figure("confusion", confusion_figure(confusion, names))
        pairs = confused_pairs(confusion, _PAIRS)
        of_class = confusion.sum(axis=1)
        self._csv(
            "confused_pairs",
            ["label", "predicted", "images", "share_of_label"],
            ([names[a], names[b], count, f"{count / of_class[a]:.6g}"] for a, b, count in pairs),
        )
        wrong = np.flatnonzero(predicted != labels)
        chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
        captions = [f"is {names[labels[i]]}\nsays {names[predicted[i]]}\n{confidence[i]:.1%}" for i in chosen]
        self._gallery(source, chosen, captions, of=len(wrong))
        return self._calibration(confidence, predicted == labels)

    def _write_multilabel(
        self, source: Source, logits: np.ndarray, probabilities: np.ndarray, labels: np.ndarray
    ) -> float:
        names, there = source.class_names, labels > 0.5
        self._csv(
            "predictions",
            ["example", "labels", *names],
            (
                [source.key(i), _joined(names, there[i]), *(f"{p:.6g}" for p in row)]
                for i, row in enumerate(probabilities)
            ),
        )
        scores = multilabel_class_scores(logits, labels)._asdict()
        self._scores(names, {"average_precision": average_precision(logits, labels), **scores})
        wrong = np.where(there == (logits > 0), 0, np.abs(probabilities - there))  # (n, classes)
        worst, error = wrong.argmax(axis=1), wrong.max(axis=1)
        chosen = np.argsort(-error, kind="stable")[: min(_MISTAKES, np.count_nonzero(error))]
        captions = [
            f"is {_joined(names, there[i]) or 'none'}\n{'misses' if there[i, c] else 'says'} {names[c]}\n"
            f"{probabilities[i, c]:.1%}"
            for i, c in zip(chosen, worst[chosen], strict=True)
        ]
        self._gallery(source, chosen, captions, of=int(np.count_nonzero(error)))
        return self._calibration(probabilities.ravel(), there.ravel())

    def _calibration(self, probabilities: np.ndarray, right: np.ndarray) -> float:
        """Write how well probabilities hold, and return the expected calibration error."""
        found = calibration(probabilities, right)
        columns = (found.edges[:-1], found.edges[1:], found.confidence, found.accuracy)
        self._csv(
            "calibration",
            ["above", "up_to", "confidence", "accuracy", "predictions"],
            ([*map(_number, numbers), count] for *numbers, count in zip(*columns, found.predictions, strict=True)),
        )
        self._figure("reliability", reliability_figure(found))
        return found.ece

    def _scores(self, names: Sequence[str], scores: Mapping[str, np.ndarray]) -> None:
        rows = ([name, *map(_number, values)] for name, *values in zip(names, *scores.values(), strict=True))
        self._csv("classes", ["class", *scores], rows)

    def _gallery(self, source: Source, chosen: np.ndarray, captions: Sequence[str], *, of: int) -> None:
        """Draw the chosen examples, read anew: an evaluation keeps no images."""
        if not len(chosen):
            (self._folder / "mistakes.png").unlink(missing_ok=True)
            return
        images = [source[int(i)]["image"].copy() for i in chosen]
        for image in images:
            image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        title = f"the {len(chosen)} most confident of {of:,} mistakes" if len(chosen) < of else "all mistakes"
        self._figure("mistakes", grid_figure([np.asarray(image) for image in images], captions, title=title))

    def _csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        with (self._folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    def _figure(self, name: str, figure: Any) -> None:
        figure.savefig(self._folder / f"{name}.png")


def _joined(names: Sequence[str], there: np.ndarray) -> str:
    return "|".join(names[i] for i in np.flatnonzero(there).tolist())


def _number(value: float | np.integer) -> str:
    """A count, or six digits; nothing for what is not a number."""
    if isinstance(value, np.integer):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6g}"
