"""A run that starts from another one's weights, frozen in part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn import create_model, load_weights
from flaxcnn.build import build
from flaxcnn.config import Config, DataConfig, ModelConfig
from flaxcnn.models import with_head
from flaxcnn.weights import CHECKPOINTS, checkpoint
from tests.cli.conftest import Command, records

PUBLISHED = {row.model: checkpoint(row.model) for row in CHECKPOINTS}
ONE_OF_EACH_VIEW = sorted(
    {(row.size, row.resize, row.interpolation, row.mean, row.std): name for name, row in PUBLISHED.items()}.values()
)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten noisy pictures, told by their brightness."""
    folder, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for label, level in enumerate((30, 120, 210)):
        (folder / f"class{label}").mkdir()
        for i in range(10):
            pixels = random.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{i}.png")
    return folder


@pytest.fixture
def fine_tune(command: Command, config_file: Path, run_folder: Path, colours: Path, tmp_path: Path) -> Callable:
    words = ["--config", config_file, "--workdir", tmp_path / "run", "--model.weights", run_folder]
    words += ["--data.name", "image_folder", "--data.path", colours, "--data.augment", "none", "--data.batch_size", 8]
    return lambda *more: command("train", *words, *more)


def test_a_new_head_on_a_frozen_backbone_for_grey_images(
    command: Command, fine_tune: Callable, run_folder: Path, colours: Path, tmp_path: Path
) -> None:
    result = fine_tune("--optimizer.trainable", "fc3", 0, "--data.channels", 1)
    assert result.status == 0, result
    lines = result.err.splitlines()
    assert f"starting from the weights in {run_folder}" in lines
    assert "first kernel (conv1.weight) summed over its 3 channels" in lines
    assert "newly initialised for 3 classes: fc3" in lines

    before = load_weights(create_model("lenet", num_classes=10, image_size=16), run_folder)["params"]
    after = load_weights(create_model("lenet", num_classes=3, image_size=16), tmp_path / "run", channels=1)["params"]
    for layer in ("conv2", "fc1", "fc2"):
        for name, leaf in before[layer].items():
            np.testing.assert_array_equal(after[layer][name], leaf)
    np.testing.assert_allclose(
        after["conv1"]["kernel"], before["conv1"]["kernel"].sum(axis=2, keepdims=True), atol=1e-6
    )
    # Evaluation and prediction see grey images too.
    evaluated = json.loads(command("evaluate", "--workdir", tmp_path / "run", "--json").out)
    best = max(record["top1"] for record in records(tmp_path / "run") if record["split"] == "eval")
    assert evaluated["top1"] == best
    assert command("predict", "--workdir", tmp_path / "run", colours / "class0").status == 0
    assert command("convert", tmp_path / "run", tmp_path / "out.pth").status == 0


@pytest.mark.slow
def test_unfreezing_goes_on_where_it_stopped(fine_tune: Callable, tmp_path: Path, run_folder: Path) -> None:
    """A stack on a backbone that trains from the second epoch, whole and in two parts, from a checkpoint."""
    words = ["--model.head", 8, "--train.epochs", 2, "--train.keep", 2, "--optimizer.factors", "backbone", 0.1]
    words += ["--optimizer.trainable", "head", 0, "backbone.fc", 1]
    assert fine_tune(*words).status == 0
    model = with_head(create_model("lenet", num_classes=3, image_size=16), 8)
    start = load_weights(create_model("lenet", num_classes=10, image_size=16), run_folder)["params"]
    first, last = (load_weights(model, tmp_path / "run" / "checkpoints" / step)["params"] for step in ("3", "6"))
    for layer in ("conv1", "conv2", "fc1", "fc2"):
        np.testing.assert_array_equal(first["backbone"][layer]["kernel"], start[layer]["kernel"])
        moved = np.abs(last["backbone"][layer]["kernel"] - start[layer]["kernel"]).max()
        assert (moved > 0) == layer.startswith("fc")
        assert moved < 0.01  # a tenth of the head's rate
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    shutil.move(run_folder, tmp_path / "moved")  # a run that goes on does not need them
    try:
        assert fine_tune(*words).status == 0
    finally:
        shutil.move(tmp_path / "moved", run_folder)
    again = load_weights(model, tmp_path / "run" / "checkpoints" / "6")["params"]
    for layer, leaves in last["backbone"].items():
        np.testing.assert_array_equal(again["backbone"][layer]["kernel"], leaves["kernel"])
    np.testing.assert_array_equal(again["head"]["0"]["kernel"], last["head"]["0"]["kernel"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model.weights", "nowhere.pth"],
            "model.weights: there is no file or folder nowhere.pth; 'published' stands",
        ),
        (["--model.weights", "published"], "model.weights: there are no published weights of 'lenet'"),
        (["--model.weights", __file__], "model.weights: " + __file__ + " is neither a PyTorch file nor safetensors"),
        (["--optimizer.trainable", "fc4", 0], "optimizer.trainable: no parameter's path begins with a match of 'fc4'"),
        (["--optimizer.factors", "fc4", 0.1], "did you mean fc"),
        (["--optimizer.trainable", "fc3", 1], "optimizer.trainable: nothing trains at first"),
        (["--optimizer.trainable", "fc3"], "write patterns and numbers"),
        (["--optimizer.trainable", "fc3", "soon"], "soon"),
        (["--optimizer.trainable", "fc3", -1], "optimizer.trainable must be epochs of 0 or more"),
        (["--optimizer.factors", "fc3", 0], "optimizer.factors must be factors above 0"),
        (["--model.head", 0], "model.head must be widths of 1 or more"),
    ],
)
def test_what_cannot_be_fine_tuned(fine_tune: Callable, words: list[object], message: str) -> None:
    result = fine_tune(*words)
    assert result.status == 2, result
    line = result.err.splitlines()[-1]
    assert message in line
    assert line.startswith("train: ")


@pytest.mark.parametrize("name", ONE_OF_EACH_VIEW)
def test_published_weights_bring_their_preprocessing(name: str) -> None:
    row, config = PUBLISHED[name], Config(ModelConfig(name, weights="published"))
    view = build(config).preprocessing
    assert (view.size, view.resize, view.interpolation) == (row.size, row.resize, row.interpolation)
    assert row.mean is None or (view.mean, view.std) == (row.mean, row.std)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v1", "resnet18"])
def test_fields_go_before_the_preprocessing_of_published_weights(name: str) -> None:
    row, view = PUBLISHED[name], build(Config(ModelConfig(name, weights="published"))).preprocessing
    other = build(Config(ModelConfig(name, weights="published"), DataConfig(image_size=96, mean=(0.1, 0.2, 0.3))))
    assert (other.preprocessing.size, other.preprocessing.mean) == (96, (0.1, 0.2, 0.3))
    assert row.resize is not None
    assert other.preprocessing.resize == round(96 * row.resize / row.size)
    assert other.train_transform.std == view.std
