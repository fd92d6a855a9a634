"""Records on disk, in TensorBoard's files and on the terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flaxcnn.errors import UserError
from flaxcnn.train.writers import Console, JsonLines, TensorBoard, WeightsAndBiases, read_records
from tests.events import hyperparameters_of, values_of


def train_record(step: int) -> dict:
    return {
        "step": step,
        "epoch": 1,
        "split": "train",
        "loss": 1 / step,
        "top1": 0.5,
        "learning_rate": 0.1,
        "images_per_second": 1234.5,
    }


def eval_record(step: int) -> dict:
    return {"step": step, "epoch": 1, "split": "eval", "loss": 0.25, "top1": 0.9, "top5": 1.0, "examples": 359}


def write(path: Path, records: list[dict], resume_step: int = 0) -> None:
    writer = JsonLines(path, resume_step=resume_step)
    for record in records:
        writer.write(record)
    writer.close()


def test_records_come_back_exactly(tmp_path: Path) -> None:
    records = [train_record(step) for step in (1, 2, 3)] + [eval_record(3)]
    write(tmp_path / "metrics.jsonl", records)
    assert read_records(tmp_path / "metrics.jsonl") == records
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == records


def test_a_record_is_on_disk_before_the_next(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "metrics.jsonl", resume_step=0)
    writer.write(train_record(1))
    assert read_records(tmp_path / "metrics.jsonl") == [train_record(1)]
    writer.close()


def test_resuming_drops_what_is_about_to_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [train_record(1), train_record(2), eval_record(2), train_record(3)])
    write(path, [train_record(3), train_record(4)], resume_step=2)
    assert [r["step"] for r in read_records(path)] == [1, 2, 2, 3, 4]
    assert not (tmp_path / "metrics.partial").exists()


def test_an_evaluation_that_is_about_to_be_done_again_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [train_record(1), train_record(2), eval_record(2)])
    JsonLines(path, resume_step=2, evaluated=False).close()
    assert read_records(path) == [train_record(1), train_record(2)]


@pytest.mark.parametrize("torn", ['{"step": 3, "ep', "{", '{"step": 3}'])
def test_a_last_line_that_was_torn_is_left_out(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [train_record(1), train_record(2)])
    with path.open("a") as file:
        file.write(torn)
    assert read_records(path) == [train_record(1), train_record(2)]
    write(path, [train_record(3)], resume_step=2)
    assert read_records(path) == [train_record(step) for step in (1, 2, 3)]


def test_tensorboard_has_every_number(tmp_path: Path) -> None:
    writer = TensorBoard(tmp_path, resume_step=0)
    writer.write(train_record(2))
    writer.write(eval_record(2))
    writer.close()
    expected = {(f"train/{k}", 2): v for k, v in train_record(2).items() if k not in ("step", "epoch", "split")}
    expected |= {(f"eval/{k}", 2): v for k, v in eval_record(2).items() if k not in ("step", "epoch", "split")}
    assert values_of(tmp_path, "simple_value") == pytest.approx(expected)


IMAGE = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
ARRAYS = {"a": np.linspace(-1, 3, 640, dtype=np.float32).reshape(8, 80), "constant": np.ones(3, np.float32)}
VALUES = {"rate": 0.1, "epochs": 3, "name": "sgd", "nesterov": True}


def test_tensorboard_has_pictures_histograms_and_hyperparameters(tmp_path: Path) -> None:
    writer = TensorBoard(tmp_path, resume_step=0)
    writer.hyperparameters(VALUES)
    writer.picture(4, "picture", IMAGE)
    writer.histograms(4, ARRAYS)
    writer.close()
    ((where, image),) = values_of(tmp_path, "image").items()
    assert where == ("picture", 4)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), IMAGE)
    found = values_of(tmp_path, "histo")
    even, constant = found["a", 4], found["constant", 4]
    assert list(even.bucket) == [10] * 64  # evenly spread values
    np.testing.assert_allclose(even.bucket_limit, np.linspace(-1, 3, 65)[1:])
    assert (even.min, even.max, even.num, even.sum) == pytest.approx((-1, 3, 640, 640))
    assert even.sum_squares == pytest.approx((ARRAYS["a"] ** 2).sum())
    assert (constant.num, sum(constant.bucket), constant.sum_squares) == (3, 3, 3)
    assert hyperparameters_of(tmp_path) == VALUES


class RecordedRun:
    """Stands for a run of Weights & Biases, and keeps what it is told."""

    def __init__(self) -> None:
        self.id, self.logged, self.finished = "abc", [], 0
        self.config = SimpleNamespace(update=self._update)

    def _update(self, values: dict, *, allow_val_change: bool) -> None:
        self.logged.append(("config", values))

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.logged.append((name, step_metric))

    def log(self, values: dict) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


def test_weights_and_biases_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_run").mkdir()
    started, run = [], RecordedRun()
    package: Any = ModuleType("wandb")
    package.init = lambda **options: started.append(options) or run
    package.Error, package.Settings = RuntimeError, lambda **options: options
    package.Image, package.Histogram = lambda image: image, lambda np_histogram: np_histogram
    monkeypatch.setitem(sys.modules, "wandb", package)
    writer = WeightsAndBiases("digits", tmp_path / "my_run")
    writer.write(train_record(2))
    writer.hyperparameters(VALUES)
    writer.picture(4, "picture", IMAGE)
    writer.histograms(4, ARRAYS)
    writer.close()
    every, record, config, picture, histograms = run.logged
    assert every == ("*", "step")
    numbers = {f"train/{k}": v for k, v in train_record(2).items() if k not in ("step", "epoch", "split")}
    assert record == {"step": 2, **numbers}
    assert config == ("config", VALUES)
    assert picture == {"step": 4, "picture": IMAGE}
    assert histograms["step"] == 4
    assert histograms["a"][0].tolist() == [10] * 64
    assert run.finished == 1
    WeightsAndBiases("digits", tmp_path / "my_run")  # goes on
    assert [(o["project"], o["name"], o["id"]) for o in started] == [
        ("digits", "my_run", None),
        ("digits", "my_run", "abc"),
    ]

    def refuse(**options: Any) -> None:
        raise RuntimeError("No API key configured.\nMore.")

    package.init = refuse
    with pytest.raises(UserError, match=r"^train\.wandb: No API key configured\. Log in with"):
        WeightsAndBiases("digits", tmp_path / "another")


@pytest.mark.slow
def test_weights_and_biases_offline_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs Weights & Biases (pip install 'flaxcnn[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (2, 1):  # The second goes on, from an earlier step than the first had come to.
        writer = WeightsAndBiases("digits", tmp_path)
        writer.hyperparameters(VALUES)
        writer.write({"step": step, "epoch": 1, "split": "train", "loss": 0.125 + step})
        writer.picture(step, "picture", IMAGE)
        writer.histograms(step, ARRAYS)
        writer.close()
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*"))
    name = (tmp_path / "wandb" / "run_id").read_text()
    for folder, loss in ((first, b"2.125"), (second, b"1.125")):
        kept = (folder / f"run-{name}.wandb").read_bytes()
        for part in (b"train/loss", loss, b"constant", b"nesterov", b"digits"):
            assert part in kept
        (picture,) = folder.rglob("picture_*.png")
        np.testing.assert_array_equal(np.asarray(Image.open(picture)), IMAGE)


def test_weights_and_biases_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'flaxcnn\[wandb\]'"):
        WeightsAndBiases("digits", tmp_path)


def console_output(records: list[dict], **options) -> str:
    file = io.StringIO()
    console = Console(total_steps=40, steps_per_epoch=20, file=file, **options)
    console.say("compiling [1/2] ...")
    for record in records:
        console.write(record)
    console.close()
    return file.getvalue()


def test_without_a_terminal_there_are_plain_lines() -> None:
    output = console_output([train_record(10), train_record(20), eval_record(20)], line_seconds=0)
    lines = output.splitlines()
    assert lines[0] == "compiling [1/2] ..."
    assert lines[1].startswith("epoch 1/2  step 10  train  loss 0.1000  top-1 50.0%  1,234 images/s  ")
    assert lines[1].endswith(" left")
    assert lines[3] == "epoch 1/2  step 20  eval   top-1 90.00%  top-5 100.00%  loss 0.2500  (359 examples)"
    assert len(lines) == 4
    assert "\x1b" not in output
    assert "\r" not in output


def test_lines_come_every_so_often_but_evaluations_always() -> None:
    output = console_output([train_record(step) for step in range(1, 21)] + [eval_record(20)], line_seconds=1000)
    assert [line.split()[4] for line in output.splitlines()[1:]] == ["eval"]


def test_a_long_line_is_not_broken() -> None:
    file = io.StringIO()
    console = Console(total_steps=4, steps_per_epoch=2, file=file)
    console.say("word " * 100)
    assert len(file.getvalue().splitlines()) == 1


def test_on_a_terminal_there_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    console = Console(total_steps=40, steps_per_epoch=20, file=file)
    console.write(train_record(10))
    console.write(eval_record(20))
    console.close()
    output = file.getvalue()
    assert "10/40" in output
    assert "epoch 1/2" in output
    assert "1,234 images/s" in output
    assert "(359 examples)" in output
