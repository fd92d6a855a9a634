"""The picture of a data set: that it is one, whatever the data set looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.visual.samples import samples_figure


@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (9, 60)])
def test_it_draws(tmp_path: Path, samples: int, classes: int) -> None:
    images = np.random.default_rng(0).random((samples, 8, 8, 3))
    counts = {split: {f"class {i}": i + 1 for i in range(classes)} for split in ("train", "val")}
    figure = samples_figure(images, ["a name that is too long for a picture"] * samples, counts, columns=8)
    figure.savefig(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
