"""Train, evaluate and predict, as a user would."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import digits
from tests.cli.conftest import Command, records
from tests.events import hyperparameters_of, values_of


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_leaves_everything_in_its_folder(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()} - {".lock"}
    files = {"config.json", "class_names.json", "examples.json", "metrics.jsonl", "curves.png"}
    files |= {"train_examples.txt.gz", "val_examples.txt.gz"}
    assert names == files | {"checkpoints", "tensorboard"}
    config = json.loads((run_folder / "config.json").read_text())
    assert config["model"]["name"] == "lenet"
    assert config["train"]["epochs"] == 2
    assert json.loads((run_folder / "class_names.json").read_text()) == [str(i) for i in range(10)]
    assert {p.name for p in (run_folder / "checkpoints").iterdir()} == {"22", "44"}
    assert len(list((run_folder / "tensorboard").glob("events.out.tfevents.*"))) == 1
    with Image.open(run_folder / "curves.png") as picture:
        assert picture.size[0] >= 1000
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn


def test_the_records_of_a_run(run_folder: Path) -> None:
    # 1,438 images in batches of 64 make 22 steps an epoch; a record every 10 steps and at the end of an epoch.
    steps = [(r["split"], r["step"], r["epoch"]) for r in records(run_folder)]
    assert steps == [
        ("train", 10, 1),
        ("train", 20, 1),
        ("train", 22, 1),
        ("eval", 22, 1),
        ("train", 30, 2),
        ("train", 40, 2),
        ("train", 44, 2),
        ("eval", 44, 2),
    ]
    common = {"step", "epoch", "split", "loss", "top1"}
    for record in records(run_folder):
        if record["split"] == "train":
            assert set(record) == common | {"learning_rate", "images_per_second"}
        else:
            assert set(record) == common | {"top5", "examples"}
            assert record["examples"] == 359
    assert records(run_folder)[-1]["top1"] > 0.75


def test_tensorboard_shows_a_run(run_folder: Path) -> None:
    folder = run_folder / "tensorboard"
    scalars, images = values_of(folder, "simple_value"), values_of(folder, "image")
    assert scalars["eval/top1", 44] == pytest.approx(records(run_folder)[-1]["top1"])
    assert {("samples", 0), ("confusion", 44)} <= images.keys()
    for image in images.values():
        pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        assert pixels.shape == (image.height, image.width, 3)
        assert pixels.std() > 5  # something is drawn
    kernels = {tag: histogram for (tag, step), histogram in values_of(folder, "histo").items() if step == 44}
    assert len(kernels) == 10  # kernels and biases of LeNet's layers
    assert kernels["parameters/conv1.kernel"].num == 5 * 5 * 3 * 16
    values = hyperparameters_of(folder)
    assert (values["model.name"], values["optimizer.learning_rate"]) == ("lenet", 0.002)
    assert "workdir" not in values


def test_training_says_what_it_does(command: Command, config_file: Path, tmp_path: Path) -> None:
    result = command("train", "--config", config_file, "--workdir", tmp_path / "run", "--train.epochs", 1)
    assert result.status == 0
    assert result.err.splitlines()[0].startswith(
        "lenet, 29,022 parameters, on 1,438 images of 16x16 (359 held out), 10 classes; 1 x "
    )
    assert "compiling the training and evaluation steps ..." in result.err
    assert "compiled in " in result.err
    assert "\x1b" not in result.err + result.out
    first, second = result.out.splitlines()
    assert first.startswith("top-1 ")
    assert first.endswith("(359 examples)")
    assert str(tmp_path / "run" / "curves.png") in second

    before = files_below(tmp_path / "run")
    again = command("train", "--config", config_file, "--workdir", tmp_path / "run", "--train.epochs", 1)
    assert again.status == 0
    assert again.out == result.out
    assert "resuming from step 22 of 22" in again.err
    after = files_below(tmp_path / "run")
    assert {name: data for name, data in after.items() if "tensorboard" not in name} == {
        name: data for name, data in before.items() if "tensorboard" not in name
    }


def test_the_run_can_go_on_with_other_threads(command: Command, config_file: Path, run_folder: Path, tmp_path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    result = command("train", "--config", config_file, "--workdir", tmp_path / "run", "--data.threads", 1)
    assert result.status == 0


@pytest.mark.slow
def test_processes_that_load_images_change_nothing(command: Command, config_file: Path, run_folder: Path, tmp_path):
    result = command("train", "--config", config_file, "--workdir", tmp_path / "run", "--data.processes", 2)
    assert result.status == 0, result.err
    measured = [{name: r[name] for name in ("step", "split", "loss", "top1")} for r in records(run_folder)]
    assert measured == [{name: r[name] for name in measured[0]} for r in records(tmp_path / "run")]


@pytest.mark.parametrize("batch_size", [1, 7, 359, 1000])
def test_evaluation_is_exact_for_any_batch_size(command: Command, run_folder: Path, batch_size: int) -> None:
    result = command("evaluate", "--workdir", run_folder, "--json", "--data.eval_batch_size", batch_size)
    assert result.status == 0
    numbers = json.loads(result.out)
    trained = next(r for r in records(run_folder) if r["split"] == "eval" and r["step"] == 44)
    assert set(numbers) == {"top1", "top5", "loss", "examples"}
    assert numbers["examples"] == 359
    assert (numbers["top1"], numbers["top5"]) == (trained["top1"], trained["top5"])
    assert numbers["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_a_run_keeps_the_names_of_its_examples(run_folder: Path) -> None:
    for split in ("train", "val"):
        names = gzip.decompress((run_folder / f"{split}_examples.txt.gz").read_bytes()).decode().splitlines()
        assert tuple(names) == digits(split).names


@pytest.mark.slow
def test_evaluation_of_several_views(command: Command, run_folder: Path) -> None:
    one, both, ten = (
        command("evaluate", "--workdir", run_folder, "--json", "--data.resize", 36, "--data.views", views)
        for views in ("one", "flip", "ten_crop")
    )
    assert one.status == both.status == ten.status == 0
    assert len({json.loads(result.out)["loss"] for result in (one, both, ten)}) == 3
    refused = command("evaluate", "--workdir", run_folder, "--data.views", "ten_crop")
    assert refused.status == 2
    assert "data.views: ten crops need a resize above the image size 16, not None: add --data.resize 18" in refused.err


def test_evaluation_of_a_chosen_checkpoint(command: Command, run_folder: Path) -> None:
    before = files_below(run_folder)
    result = command("evaluate", "--workdir", run_folder, "--checkpoint", 22)
    first = next(r for r in records(run_folder) if r["split"] == "eval")
    assert result.status == 0
    assert "checkpoint of step 22" in result.err
    assert result.out == (
        f"top-1 {first['top1']:.2%}  top-5 {first['top5']:.2%}  loss {first['loss']:.4f}  (359 examples)\n"
    )
    assert files_below(run_folder) == before


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Held-out digits as files named by their class, one of them broken."""
    source = digits("val")
    (tmp_path / "deeper").mkdir()
    for i in range(4):
        example = source[80 * i]
        example["image"].resize((32, 32)).save(tmp_path / f"{example['label']}_{i}.png")
    source[0]["image"].save(tmp_path / "deeper" / "gif.gif")
    (tmp_path / "deeper" / "notes.txt").write_text("no image")
    return tmp_path


def test_prediction_of_a_file(command: Command, run_folder: Path, pictures: Path) -> None:
    file = next(pictures.glob("*_0.png"))
    result = command("predict", "--workdir", run_folder, file, "--top", 3)
    assert result.status == 0
    name, *rows = result.out.splitlines()
    assert name == str(file)
    assert len(rows) == 3
    probabilities = [float(row.split()[1].rstrip("%")) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(row.split()[0] in "0123456789" for row in rows)


def test_prediction_of_folders_and_patterns_as_json(command: Command, run_folder: Path, pictures: Path) -> None:
    result = command("predict", "--workdir", run_folder, "--json", "--top", 10, pictures, f"{pictures}/*_[12].png")
    assert result.status == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    everything = sorted(str(p) for p in pictures.rglob("*") if p.suffix in (".png", ".gif"))
    assert [line["file"] for line in lines] == everything + sorted(map(str, pictures.glob("*_[12].png")))
    right = 0
    for line in lines:
        assert set(line) == {"file", "predictions"}
        assert len(line["predictions"]) == 10
        assert sum(p["probability"] for p in line["predictions"]) == pytest.approx(1)
        right += line["predictions"][0]["label"] == Path(line["file"]).name[0]
    assert right >= 4


def test_predictions_are_those_of_the_evaluation(command: Command, run_folder: Path, tmp_path: Path) -> None:
    """Over every held-out digit, more than a batch of them, prediction is right as often as evaluation says."""
    source = digits("val")
    for i in range(len(source)):
        source[i]["image"].save(tmp_path / f"{i:03}.png")
    result = command("predict", "--workdir", run_folder, "--json", tmp_path)
    guesses = [json.loads(line)["predictions"][0]["label"] for line in result.out.splitlines()]
    assert len(guesses) == 359
    right = np.mean([int(guess) == label for guess, label in zip(guesses, source.labels, strict=True)])
    best = max(r["top1"] for r in records(run_folder) if r["split"] == "eval")
    assert right == pytest.approx(best, abs=1e-9)


def test_a_broken_image_does_not_stop_the_others(command: Command, run_folder: Path, pictures: Path) -> None:
    broken = pictures / "0_broken.png"
    broken.write_bytes(next(pictures.glob("*_0.png")).read_bytes()[:60])
    result = command("predict", "--workdir", run_folder, "--json", pictures)
    assert result.status == 1
    assert len(result.out.splitlines()) == 5
    (line,) = result.err.splitlines()
    assert str(broken) in line
