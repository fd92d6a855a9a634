"""A tiny run on the digits, and commands run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

CONFIG = '''"""LeNet on small digits: seconds."""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("lenet"),
        data=DataConfig(image_size=16, batch_size=64, augment="pad_crop", padding=1, threads=2),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3),
        train=TrainConfig(epochs=2, report=False),
        device="cpu",
    )
'''


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the tiny run."""
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, config_file: Path) -> Path:
    """A finished run. Read it, and copy it before changing it."""
    from flaxcnn.cli.main import script

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert script("train", ["--config", str(config_file), "--workdir", str(folder)]) == 0
    return folder


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command: `command("train", "--config", path)`; arguments of any type."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

    def run(name: str, *words: object) -> Result:
        from flaxcnn.cli.main import script

        capfd.readouterr()
        status = script(name, [str(word) for word in words])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """Run a command with bad input; the one line it says about it."""

    def run(name: str, *words: object) -> str:
        result = command(name, *words)
        assert result.status == 2, result
        assert result.out == ""
        (line,) = result.err.splitlines()
        assert line.startswith(f"{name}: ")
        return line

    return run


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(items: Sequence[dict]) -> list[dict]:
    """Records without what no two runs share."""
    return [{k: v for k, v in item.items() if k != "images_per_second"} for item in items]
