"""The picture of a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.visual.curves import comparison_figure, draw_curves, moving_average

TRAIN = [
    {
        "step": s,
        "epoch": 1,
        "split": "train",
        "loss": 1 / s,
        "top1": 0.5,
        "learning_rate": 0.1,
        "images_per_second": 9.0,
    }
    for s in (2, 4, 6)
]
EVAL = [{"step": 6, "epoch": 1, "split": "eval", "loss": 0.3, "top1": 0.6, "top5": 1.0, "examples": 10}]


@pytest.mark.parametrize("records", [TRAIN + EVAL, TRAIN, TRAIN[:1], EVAL], ids=["both", "training", "one", "held out"])
def test_whatever_there_is_is_drawn(tmp_path: Path, records: list[dict]) -> None:
    draw_curves(records, tmp_path / "curves.png", steps_per_epoch=6)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1440, 480)
        assert np.asarray(picture.convert("L")).min() < 100


def test_both_splits_are_seen(tmp_path: Path) -> None:
    def colours(records: list[dict]) -> set[tuple[int, ...]]:
        draw_curves(records, tmp_path / "curves.png", steps_per_epoch=6)
        with Image.open(tmp_path / "curves.png") as picture:
            return set(map(tuple, np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).tolist()))

    training, held_out = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    assert training in colours(TRAIN)
    assert held_out in colours(EVAL)
    assert {training, held_out} <= colours(TRAIN + EVAL)


def test_a_wild_evaluation_does_not_press_the_rest_flat(tmp_path: Path) -> None:
    def rows_of_the_training_loss(held_out: float) -> int:
        records = [*TRAIN, {**EVAL[0], "loss": held_out}]
        draw_curves(records, tmp_path / "curves.png", steps_per_epoch=6)
        with Image.open(tmp_path / "curves.png") as picture:
            left = np.asarray(picture.convert("RGB"))[:, :480]  # the loss
        return int((left == (0x00, 0x72, 0xB2)).all(axis=2).any(axis=1).sum())

    assert rows_of_the_training_loss(100.0) > 0.8 * rows_of_the_training_loss(0.3)


def test_runs_are_told_apart() -> None:
    figure = comparison_figure({"a": TRAIN + EVAL, r"$\b$": TRAIN + EVAL})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", r"$\b$"]
    for axes, records in zip(figure.axes, (TRAIN, EVAL, EVAL), strict=True):
        first, second = axes.get_lines()
        assert first.get_color() != second.get_color()
        assert list(first.get_xdata()) == [record["step"] / 6 for record in records]
    figure.savefig(io.BytesIO())


def test_the_moving_average_is_the_mean_of_a_twentieth() -> None:
    values = np.random.default_rng(0).normal(size=100)
    steps, means = moving_average(range(100), list(values))
    np.testing.assert_allclose(means, np.convolve(values, np.full(5, 1 / 5), "valid"))
    assert steps == list(range(2, 98))
    assert moving_average(range(39), list(values[:39])) == ([], [])


def test_the_moving_average_is_drawn_over_a_long_training(tmp_path: Path) -> None:
    def black_points(count: int) -> int:
        noise = np.random.default_rng(0).uniform(0.5, 1.5, count)
        records = [{**TRAIN[0], "step": step, "loss": loss} for step, loss in enumerate(noise, 1)]
        draw_curves(records, tmp_path / "curves.png", steps_per_epoch=6)
        with Image.open(tmp_path / "curves.png") as picture:
            middle = np.asarray(picture.convert("L"))[60:400, 100:470]  # of the loss
        return int((middle < 40).sum())

    assert black_points(200) > black_points(39) + 100
