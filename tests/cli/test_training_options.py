"""What a config can ask of a run, beyond the tiny one: read from what the run leaves and says."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flaxcnn import create_model, save_weights
from flaxcnn.cli import sweep
from tests.cli.conftest import Command, records, timeless

ROOT = Path(__file__).parents[2]
EVERYTHING = [
    *("--train.mixup", "0.2", "--train.cutmix", "1", "--train.ema_decay", "0.99", "--train.ema_steps", "2"),
    *("--train.accumulate", "2", "--train.remat", "True", "--train.label_smoothing", "0.1"),
    *("--train.best_metric", "average_top1", "--optimizer.clip_norm", "5", "--optimizer.decay", "kernels"),
    *("--optimizer.schedule", "one_cycle", "--train.log_every", "11"),
]


def evaluations(folder: Path) -> list[dict]:
    return [record for record in records(folder) if record["split"] == "eval"]


@pytest.mark.slow
def test_all_at_once_and_the_average_can_be_evaluated(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--config", config_file, *EVERYTHING]
    result = command("train", *words, "--workdir", tmp_path / "a")
    assert result.status == 0, result.err
    assert "average: top-1" in result.out
    last = evaluations(tmp_path / "a")[-1]
    found = {}
    for flags in ([], ["--average"]):
        result = command("evaluate", "--workdir", tmp_path / "a", "--checkpoint", "latest", "--json", *flags)
        found[bool(flags)] = json.loads(result.out)["top1"]
    assert found == {False: pytest.approx(last["top1"]), True: pytest.approx(last["average_top1"])}

    # Interrupted by its own limit, and resumed, it is the same run.
    limited = command("train", *words, "--workdir", tmp_path / "b", "--train.max_minutes", "0.0001")
    assert limited.status == 0
    assert "stopped before the first update" in limited.err.splitlines()[-1]
    assert command("train", *words, "--workdir", tmp_path / "b").status == 0
    assert timeless(records(tmp_path / "b")) == timeless(records(tmp_path / "a"))


def test_images_of_several_classes(command: Command, config_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        labels = [name for name, there in zip(("red", "green", "blue"), rng.random(3) < 0.5, strict=True) if there]
        colour = [255 * (name in labels) for name in ("red", "green", "blue")]
        Image.new("RGB", (32, 32), tuple(colour)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"path": f"{number}.png", "labels": labels}))
    manifest = tmp_path / "images.jsonl"
    manifest.write_text("\n".join(lines))
    of_manifest = ("--data.name", "manifest", "--data.path", manifest, "--data.val_fraction", 0.25)
    common = ("--config", config_file, "--workdir", tmp_path / "run", *of_manifest, "--data.batch_size", 6)
    softmax = command("train", *common)
    assert softmax.status == 2
    assert softmax.err == "train: data: these examples may have several labels each: add --train.loss sigmoid\n"
    result = command("train", *common, "--train.loss", "sigmoid", "--train.epochs", 20)
    assert result.status == 0, result.err
    evaluated = command("evaluate", "--workdir", tmp_path / "run", "--json")
    assert evaluated.status == 0, evaluated.err
    once = json.loads(evaluated.out)
    assert once["mean_average_precision"] > 0.9 and once["f1"] > 0.8
    assert command("report", "--workdir", tmp_path / "run").status == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<td>{once['mean_average_precision']:.2%}</td>" in page and "<h2>Confusions" not in page
    # Of images of one colour, the mirror image is the same.
    twice = json.loads(command("evaluate", "--workdir", tmp_path / "run", "--json", "--data.views", "flip").out)
    assert twice == pytest.approx(once, rel=1e-3)
    predicted = command("predict", "--workdir", tmp_path / "run", tmp_path / "0.png", "--json").out
    probabilities = [each["probability"] for each in json.loads(predicted)["predictions"]]
    labels = json.loads(lines[0])["labels"]
    assert sum(probabilities) == pytest.approx(len(labels), abs=0.7)


@pytest.mark.slow
def test_a_teacher_is_another_run(command: Command, config_file: Path, run_folder: Path, tmp_path: Path) -> None:
    words = ["--config", config_file, "--train.steps", 12, "--workdir", tmp_path / "run"]
    assert command("train", *words, "--distill.model", "lenet", "--distill.weights", run_folder).status == 0
    assert [record["step"] for record in evaluations(tmp_path / "run")] == [12]


def test_a_teacher_sees_as_many_channels(command: Command, refused, config_file: Path, tmp_path: Path) -> None:
    teacher = create_model("lenet", num_classes=10, image_size=16)
    images = jax.ShapeDtypeStruct((1, 16, 16, 1), np.float32)
    shapes = jax.eval_shape(lambda x: teacher.init(jax.random.key(0), x, train=False), images)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    save_weights(teacher, zeros, tmp_path / "grey.safetensors", channels=1)
    of_teacher = ("--distill.model", "lenet", "--distill.weights", tmp_path / "grey.safetensors")
    words = ("--config", config_file, "--train.steps", 1, "--workdir", tmp_path / "run", *of_teacher)
    assert "distill: the weights do not fit the model (1 mis-shaped): conv1.weight" in refused("train", *words)
    result = command("train", *words, "--data.channels", 1)
    assert result.status == 0, result.err


def test_a_run_without_an_average_has_none_to_evaluate(refused, run_folder: Path) -> None:
    assert "was trained without train.ema_decay" in refused("evaluate", "--workdir", run_folder, "--average")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.steps", "0"], "train.steps must be 1 or more, not 0"),
        (["--distill.model", "lenet"], "distill.model and distill.weights go together"),
        (["--distill.model", "lenet", "--distill.weights", "nowhere.pth"], "distill: "),
        (["--train.best_metric", "average_top1"], "train.best_metric average_top1 needs --train.ema_decay"),
        (["--train.best_metric", "f1"], "train.best_metric f1 is for examples of several labels each"),
        (["--data.repeats", "5000"], "data.repeats must be at most the 1438 training images, not 5000"),
        (
            ["--data.image_size", "None", "--data.resize", "20"],
            "data.resize must be at least the image size 32, not 20",
        ),
        (["--optimizer.trainable", "fc2", "0", "fc1", "9"], "a pattern's epoch is not before the end of the run"),
        (["--train.class_weights", "1", "2"], "train.class_weights must be one a class (10), not 2"),
        (
            ["--train.accumulate", "3"],
            "data.batch_size must be a multiple of the 1 device times train.accumulate (3), not 64: "
            "add --data.batch_size 63",
        ),
        (["--data.policy_options", "magnitude", "5"], "data.policy_options are for a policy: add --data.policy NAME"),
        (["--data.download", "True"], "data.download is for --data.name tfds, not digits"),
        (["--train.profile", "3", "2"], "train.profile must be a first step of 1 or more and one no earlier"),
        (["--train.loss", "sigmoid", "--train.label_smoothing", "0.1"], "label_smoothing is for --train.loss softmax"),
        (["--train.profile", "40", "45"], "train.profile must end by the run's last step (44), not 45"),
        (["--train.sync_batch_norm", "False"], "train.sync_batch_norm False is for --train.parallel pmap, not jit"),
        (
            ["--train.parallel", "fsdp", "--train.sync_batch_norm", "False"],
            "train.sync_batch_norm False is for --train.parallel pmap, not fsdp",
        ),
        (
            ["--train.loss", "sigmoid", "--distill.model", "lenet", "--distill.weights", "nowhere.pth"],
            "distill.model is for --train.loss softmax",
        ),
        (["--distributed.coordinator", "localhost:1"], "needs distributed.num_processes and process_id"),
        (["--distributed.process_id", "1"], "distributed.coordinator must be HOST:PORT"),
        (
            [
                *("--distributed.coordinator", "somewhere"),
                *("--distributed.num_processes", "2", "--distributed.process_id", "0"),
            ],
            "distributed.coordinator must be HOST:PORT, not somewhere",
        ),
    ],
)
def test_what_does_not_go_together(refused, config_file: Path, tmp_path: Path, words: list[str], message: str) -> None:
    assert message in refused("train", "--config", config_file, "--workdir", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_check_says_what_a_step_takes_and_overfits(command: Command, config_file: Path) -> None:
    result = command("check", "--config", config_file, "--steps", 60)
    assert result.status == 0, result
    # 29,022 parameters of 4 bytes; two moments of each, and the count of Adam and of the schedule.
    assert "parameters              0.1 MB, 29,022 numbers" in result.out
    assert "optimizer state         0.2 MB, 58,046 numbers" in result.out
    assert "temporary" in result.out
    assert command("check", "--config", config_file, "--steps", 2).status == 1


@pytest.mark.slow
def test_find_lr_draws_and_suggests(command: Command, config_file: Path, tmp_path: Path) -> None:
    result = command("find_lr", "--config", config_file, "--out", tmp_path / "rate.png")
    assert result.status == 0, result
    assert 1e-4 < float(result.out.split(":")[0]) < 1e-1
    assert (tmp_path / "rate.png").exists()


@pytest.mark.slow
def test_a_sweep_says_mean_and_deviation(command: Command, config_file: Path, tmp_path: Path) -> None:
    result = command("sweep", "--config", config_file, "--seeds", 1, 2, "--workdir", tmp_path, "--train.steps", 30)
    assert result.status == 0, result
    top1 = [evaluations(tmp_path / f"seed_{seed}")[-1]["top1"] for seed in (1, 2)]
    mean, deviation = sum(top1) / 2, abs(top1[0] - top1[1]) / 2**0.5
    assert f"top1                            {mean:.4f} +- {deviation:.4f}" in result.out


def test_a_sweep_says_every_metric_of_the_evaluation() -> None:
    base = {"step": 30, "epoch": 2, "split": "eval", "examples": 9}
    metrics = ("loss", "mean_average_precision", "macro_f1", "average_loss", "average_top5", "average_macro_f1")
    lines = sweep.summary([{**base, **dict.fromkeys(metrics, value)} for value in (1.0, 3.0)])
    assert lines == [f"{metric:30}  2.0000 +- 1.4142" for metric in metrics]


@pytest.mark.slow
def test_a_profile_of_chosen_steps(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--config", config_file, "--train.steps", 6, "--train.profile", 3, 4]
    assert command("train", *words, "--workdir", tmp_path / "run").status == 0
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def start_processes(count: int, config_file: Path, folder: Path, own: Sequence[Sequence[object]]) -> list:
    """Processes of a run, of two devices together, each with words of its own."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={2 // count}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": ""}
    words = ["scripts/train.py", "--config", config_file, "--workdir", folder]
    if count > 1:
        words += ["--distributed.coordinator", f"localhost:{port}", "--distributed.num_processes", count]
        own = [[*each, "--distributed.process_id", index] for index, each in enumerate(own)]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, (*words, *each))],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for each in own
    ]


def train_in(count: int, config_file: Path, folder: Path) -> list[str]:
    """What each of so many processes says."""
    processes = start_processes(count, config_file, folder, [[]] * count)
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(outputs)
    return outputs


IN_TURNS = """
import itertools, sys
from types import SimpleNamespace

from flaxcnn.cli import train
from flaxcnn.cli.main import script

config, folder, *turns = sys.argv[1:]
words = ["--config", config, "--workdir", folder, "--train.steps", "12", "--train.max_minutes", "1"]
for turn in turns:
    arrangement, looks = turn.split(":")  # at the clock, until its minute is over
    times = itertools.count(step=60 / int(looks))
    train.time = SimpleNamespace(monotonic=lambda: next(times))
    assert script("train", [*words, "--train.parallel", arrangement]) == 0
"""


@pytest.mark.slow
def test_a_run_goes_on_in_another_arrangement(config_file: Path, tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": "", "PYTHONPATH": str(ROOT)}
    for folder, turns in (("one", ["jit:100"]), ("both", ["jit:6", "pmap:6", "jit:100"])):
        words = [sys.executable, "-c", IN_TURNS, str(config_file), str(tmp_path / folder), *turns]
        result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert result.stderr.count("resuming from step") == 2
    one, both = evaluations(tmp_path / "one"), evaluations(tmp_path / "both")
    assert [record["step"] for record in one] == [record["step"] for record in both] == [12]
    assert both[-1]["loss"] == pytest.approx(one[-1]["loss"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_train_as_one(config_file: Path, tmp_path: Path) -> None:
    train_in(1, config_file, tmp_path / "one")
    first, second = train_in(2, config_file, tmp_path / "two")
    assert "top-1" in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []
    one, two = evaluations(tmp_path / "one"), evaluations(tmp_path / "two")
    assert [record["examples"] for record in two] == [record["examples"] for record in one] == [359, 359]
    assert two[-1]["loss"] == pytest.approx(one[-1]["loss"], rel=0.05)


def ends_of_two(processes: list) -> list[tuple[int, str]]:
    """Exit status and words of processes that must end by themselves, and soon."""
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
def test_an_error_in_one_process_ends_both(config_file: Path, tmp_path: Path) -> None:
    """In the middle of the run, at an image that is broken in its own copy of the data."""
    random = np.random.default_rng(0)
    for copy, number in itertools.product(("first", "second"), range(40)):
        file = tmp_path / copy / f"class_{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(file)
    (tmp_path / "second" / "class_1" / "7.png").write_bytes(b"no image")
    words = ["--data.name", "image_folder", "--data.batch_size", 4, "--train.epochs", 100000]
    own = [[*words, "--data.path", tmp_path / copy] for copy in ("first", "second")]
    first, second = ends_of_two(start_processes(2, config_file, tmp_path / "run", own))
    assert first[0] != 0, first[1]
    assert second[0] == 2, second[1]
    (line,) = [line for line in second[1].splitlines() if not line.startswith("[Gloo]")]
    assert line.startswith("train: ") and "7.png" in line


@pytest.mark.slow
def test_processes_that_were_started_differently(config_file: Path, tmp_path: Path) -> None:
    own = [["--optimizer.learning_rate", rate] for rate in (0.01, 0.02)]
    for status, output in ends_of_two(start_processes(2, config_file, tmp_path / "run", own)):
        assert status == 2, output
        assert "the processes differ in optimizer.learning_rate: start the same command on each" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_the_first_process_alone_refuses_ends_both(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first, second = ends_of_two(start_processes(2, config_file, tmp_path, [[], []]))
    assert first[0] == 2, first[1]
    assert "is not the folder of a run and holds other files (notes.txt)" in first[1]
    assert second[0] != 0, second[1]
