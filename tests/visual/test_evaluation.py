"""Pictures of an evaluation: what can be read from them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flaxcnn.metrics import calibration
from flaxcnn.visual.evaluation import confusion_figure, reliability_figure


def rendered(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("n", [2, 10])
def test_few_classes_have_their_counts_and_names(n: int) -> None:
    confusion = np.arange(n * n).reshape(n, n)
    axes = confusion_figure(confusion, [f"class {i}" for i in range(n)]).axes[0]
    found = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert found == {(i, j): str(confusion[i, j]) for i in range(n) for j in range(n) if confusion[i, j]}
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {i}" for i in range(n)]


def test_numbers_that_do_not_fit_are_left_out() -> None:
    names = [str(i) for i in range(40)]
    assert confusion_figure(np.full((40, 40), 99), names).axes[0].texts
    assert not confusion_figure(np.full((40, 40), 1_000_000), names).axes[0].texts


def test_a_single_mistake_among_a_thousand_classes_is_seen() -> None:
    confusion = np.diag(np.full(1000, 50))
    names = [f"class {i}" for i in range(1000)]
    figure = confusion_figure(confusion, names)
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticklabels()) < 20
    without = rendered(figure)
    for row, column in ((7, 900), (501, 333)):
        changed = confusion.copy()
        changed[row, column] = 1
        differs = np.abs(rendered(confusion_figure(changed, names)).astype(int) - without).max(axis=2)
        height, width = differs.shape
        rows, columns = np.nonzero(differs > 60)
        assert (abs(rows / height - (row + 0.5) / 1000) < 0.1).any()
        assert (abs(columns / width - (column + 0.5) / 1000) < 0.2).any()


def test_bars_are_as_high_as_it_is_right() -> None:
    found = calibration(np.array([0.1, 0.6, 0.9, 0.95]), np.array([False, True, True, False]), bins=4)
    above, below = reliability_figure(found).axes
    assert [bar.get_height() for bar in above.patches] == [0, 0, 1, 0.5]
    assert [bar.get_height() for bar in below.patches] == [1, 0, 1, 2]
    assert f"{found.ece:.2%}, 4 bins of equal width" in above.get_title()
