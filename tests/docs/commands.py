"""How a test runs a command of the pages: as it stands, but on little data and for a few steps."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import flaxcnn.data
from flaxcnn import create_model
from flaxcnn.cli import command_line
from flaxcnn.cli.main import COMMANDS, script
from flaxcnn.config import Config
from flaxcnn.models import abstract_variables, list_models
from flaxcnn.weights import save_weights
from tests.data.pictures import photographs, real_images, write_idx
from tests.data.test_archives import Cifar
from tests.docs.pages import ROOT
from tests.variants import _FIXED_SIZES

# What benchmarks are asked to do instead of what the pages measure with them.
SMALL_BENCHMARKS = {
    "compare": "--models lenet --batch 2 --image-size 32 --rounds 1 --seconds 1",
    "compile_time": "--models lenet --batch 2 --image-size 32 --rounds 1",
    "convergence": "--models lenet --trainers flaxcnn --seeds 1",
    "convolution": "--batch 1 --repeats 1 --seconds 0 --only depthwise",
    "did_not_pay": "--batch 2 --repeats 1 --image-size 32 --only '(?!Winograd in training|BatchNorm)'",
    "degradation": "--depths 8 --epochs 1",
    "fine_tuning": "--pictures 16 8 --image-size 32 --scratch-epochs 1",
    "guidelines": "--turns 1",
    "imagenet_plan": "",
    "loader": "--images 128 --rounds 1",
    "models_table": "--models lenet --out .",
    "results_table": "--models lenet --epochs 2 --out .",
    "scaling": "--models lenet --devices 1 2 --rounds 1",
    "speed_tables": "--out .",
}
# Those of many steps, to which XLA's optimisations are worth their time: tests do without.
OPTIMISED = ("convergence", "results_table")
# Files that the pages take for granted, and whose weights they hold.
WEIGHTS = {"IN.pth": "resnet18", "resnet50.pth": "resnet50", "checkpoint.pth": "resnet50"}
# What the pages' commands begin with, after what is set for them.
PROGRAMS = ("python", "pip", "pytest", "flaxcnn", "apt-get", "tfds", "tensorboard", "wandb")


def commands(line: str) -> Iterator[str]:
    """The commands of a line of a page; comments are dropped.

    A line of nothing but flags is of `train`; one that begins with no program is what a command has printed.
    """
    for part in line.split(" && "):
        if part.startswith("--"):
            folder = re.sub(r"\W", "", part)[:60]
            part = f"flaxcnn train --config configs/lenet.py --workdir runs/{folder} {part}"
        if is_command(part):
            yield " ".join(map(shlex.quote, shlex.split(part.partition(" > ")[0], comments=True)))


def is_command(line: str) -> bool:
    """Whether it begins with one of `PROGRAMS`, after what is set for it."""
    return next((word for word in line.split() if not re.match(r"\w+=", word)), "") in PROGRAMS


def run(command: str) -> None:
    """Run a command of a page in the current folder, which is one of `stage`.

    Raises:
        AssertionError: when it fails.
    """
    rule, groups = rule_of(command)
    rule(command, *groups)


def rule_of(command: str) -> tuple[Callable[..., None], tuple[str, ...]]:
    """How a command of a page is run: a function, and what it takes beside the command.

    Raises:
        AssertionError: when there is no rule for it.
    """
    for pattern, rule in RULES:
        match = re.match(pattern, command)
        if match:
            return rule, match.groups()
    raise AssertionError(f"no rule of {Path(__file__).name} says how to run: {command}")


def run_here(command: str, name: str) -> None:
    """One of flaxcnn's commands, in this process."""
    words = shlex.split(command.partition(name)[2].removeprefix(".py")) or ["--help"]
    words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in words]
    _make_room(words)
    try:
        status = script(name, words)
    except SystemExit as end:
        status = end.code
    assert status == 0, command


def _make_room(words: list[str]) -> None:
    """Folders of runs for a command, none where it begins one, and files of weights that it takes for granted."""
    begun = None
    if "--config" in words:
        default = Path("runs", Path(words[words.index("--config") + 1]).stem)
        begun = words[words.index("--workdir") + 1] if "--workdir" in words else str(default)
        if "--workdir" not in words:
            shutil.rmtree(default, ignore_errors=True)
    for word in words:
        if word in WEIGHTS and not Path(word).exists():
            _write_zeros(WEIGHTS[word], Path(word))
        if re.fullmatch(r"runs/\w+", word) and word != begun and not Path(word).exists():
            model = Path(word).name if Path(word).name in list_models() else "lenet"
            assert script("train", ["--config", "configs/lenet.py", "--model.name", model, "--workdir", word]) == 0


def _program(command: str, *more: str, **variables: str) -> None:
    """A program of the repository, in a process of its own, with more arguments and environment variables."""
    words = [*shlex.split(command)[1:], *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    ran = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def without_what_the_budget_replaces(command: str) -> str:
    """A benchmark's command, by which those that come to the same in a test are one."""
    _, (name,) = rule_of(command)
    replaced = [word for word in SMALL_BENCHMARKS[name].split() if word.startswith("--")]
    for flag in replaced:
        command = re.sub(rf" {flag}( (?!--)\S+)*", "", command)
    return command


def run_benchmark(command: str, name: str) -> None:
    """A benchmark, asked for little."""
    variables = {"XLA_FLAGS": ""} if name in OPTIMISED else {}
    _program(command, *shlex.split(SMALL_BENCHMARKS[name]), **variables)


def _tests(command: str, *groups: str) -> None:
    """Tests run as tests; here, that those that the page names are there."""
    for word in shlex.split(command):
        assert not word.startswith("tests/") or (ROOT / word).exists(), command


def _parsed(command: str, *groups: str) -> None:
    """A command for several hosts or a service: its flags are read."""
    command = re.sub(r" I\b", " 0", re.sub(r" N\b", " 2", command.replace("HOST:PORT", "host:1234")))
    words = shlex.split(re.sub(r"^.*?train(\.py)? ", "", command))
    command_line.read_config(words, prog="train", description="")


def _not_run(command: str, *groups: str) -> None:
    """Installs, and other people's programs."""


RULES: list[tuple[str, Callable[..., None]]] = [
    (r"pip install|apt-get install|tfds build|tensorboard|wandb", _not_run),
    (r"(?:\w+=\S+ )?pytest", _tests),
    (r"python -m tests\.golden (?:shapes|logits)$", _not_run),  # tests/docs/test_adding_a_model.py runs them
    (r"python benchmarks/kill_and_resume\.py", _not_run),  # tests/cli/test_resume.py runs it
    (r"python -m docs\.(?:build|figures)$", _not_run),  # tests/docs/test_site.py builds; figures are in the repository
    (r".*--(?:distributed\.coordinator|train\.wandb)", _parsed),
    (r"flaxcnn --help$", lambda command: _program("python -m flaxcnn --help")),
    (r"(?:python scripts/|flaxcnn )(\w+)(?:\.py)?", run_here),
    (r"python benchmarks/(\w+)\.py", run_benchmark),
]


def stage(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a folder one in which the pages' commands have what they name, and training a small budget.

    Args:
        folder: an empty one, which becomes the current one.
        patch: undoes it.
    """
    for name in ("scripts", "configs", "benchmarks", "flaxcnn", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs" / "images" / "guide").mkdir(parents=True)
    pictures = [picture.resize((96, 80)) for picture in photographs()]
    for name in ("PICTURE.jpg", "photos/a.jpg", "more/a.png", "chelsea.png", "coffee.png", "rocket.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        pictures[0].save(folder / name)
    crops = [picture for _, picture in real_images(64)]
    for number, picture in enumerate(crops):
        for place in ("FOLDER", "flower_photos", "five", "digits", "CIFAR10/{split}", "IMAGENET/{split}"):
            path = folder / place.format(split="val" if number % 4 == 0 else "train") / f"class_{number // 4 % 2}"
            path.mkdir(parents=True, exist_ok=True)
            picture.resize((40, 40)).save(path / f"{number}.png")
    (folder / "C").symlink_to(ROOT / "configs" / "lenet.py")

    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels[:32].reshape(-1, 8, 8) * 15, np.ones((1, 3, 3)))  # (n, 24, 24)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    for split in ("train", "test"):
        write_idx(folder / "idx", split, images, labels[:32].astype(np.uint8), zipped=True)
    (folder / "ARCHIVE").mkdir()
    Cifar(10).write_python(folder / "ARCHIVE" / "cifar-10-batches-py")

    def reduced(config: Config) -> Config:
        """The budget that the pages' commands have in a test."""
        data, train = config.data, config.train
        size = data.image_size or create_model(config.model.name).image_size
        if config.model.name not in _FIXED_SIZES:
            size = max(min(size, 64), create_model(config.model.name).min_image_size)
        path = data.path or {"fashion_mnist": "idx", "mnist": "idx"}.get(data.name)
        data = replace(data, image_size=size, path=path, batch_size=8, eval_batch_size=32, threads=1)
        # An epoch is a step, so that warm-ups and the phases of unfreezing are gone through.
        needed = math.ceil(max([config.optimizer.warmup_epochs, *config.optimizer.trainable.values()])) + 2
        epochs = min(train.epochs, needed)
        train = replace(train, steps=None, epochs=epochs, eval_every=epochs, report=False)
        return replace(config, data=data, train=train)

    for name in COMMANDS:  # those that have imported `override` keep the one that changes nothing
        import_module(f"flaxcnn.cli.{name}")
    override = command_line.override
    patch.setattr(command_line, "override", lambda *args, **kwargs: reduced(override(*args, **kwargs)))
    patch.setattr(flaxcnn.data, "steps_per_epoch", lambda *args, **kwargs: 1)
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)


def _write_zeros(model: str, path: Path) -> None:
    """A file with weights of the model's shapes."""
    network = create_model(model)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_variables(network))
    save_weights(network, zeros, path)
