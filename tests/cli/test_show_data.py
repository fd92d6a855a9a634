"""show_data: the picture, the numbers, and mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from flaxcnn.data import digits
from tests.cli.conftest import Command


def test_digits(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--images", 12, "--out", tmp_path / "d.png", "--data.policy", "rand_augment", "--data.image_size", 32]
    result = command("show_data", "--config", config_file, *words)
    assert result.status == 0
    assert "train: 1,438 images, 10 classes, of 139 (8) to 146 (1)" in result.out
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.format == "PNG"
    source = digits("train")
    pixels = np.stack([np.asarray(source[i]["image"].resize((32, 32), Image.Resampling.BILINEAR)) for i in range(1438)])
    mean, std = pixels.mean() / 255, pixels.std() / 255
    numbers = [float(word) for word in re.findall(r"\d\.\d{4}", result.out.split("over 1,438 of 1,438")[1])[:6]]
    np.testing.assert_allclose(numbers, [mean] * 3 + [std] * 3, atol=1e-4)


def test_mistakes(refused: Callable[..., str], config_file: Path, tmp_path: Path) -> None:
    assert "--config FILE is needed" in refused("show_data")
    assert "--images must be 1 or more" in refused("show_data", "--config", config_file, "--images", 0)
    assert "--out must end in .png" in refused("show_data", "--config", config_file, "--out", "x.jpg")
    words = ["--config", config_file, "--out", tmp_path / "none" / "x.png"]
    assert f"--out: there is no folder {tmp_path / 'none'}" in refused("show_data", *words)
    words = ["--config", config_file, "--data.repeats", 5000]
    assert "data.repeats must be at most the 1438 training images, not 5000" in refused("show_data", *words)
