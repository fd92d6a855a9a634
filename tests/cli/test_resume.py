"""A run that was stopped or killed ends as one that was left alone: bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.kill_and_resume import differences
from flaxcnn.build import Experiment, build
from flaxcnn.cli import train
from flaxcnn.config import Config
from flaxcnn.train.checkpoint import Checkpoints
from tests.cli.conftest import Command, records

ROOT = Path(__file__).parents[2]


def test_a_run_is_a_function_of_its_config(
    command: Command, config_file: Path, run_folder: Path, tmp_path: Path
) -> None:
    """Whatever the number of threads that load images; another seed makes another run."""
    words = ["--config", config_file, "--data.threads", 1]
    assert command("train", *words, "--workdir", tmp_path / "again").status == 0
    assert differences(run_folder, tmp_path / "again") == []
    assert command("train", *words, "--workdir", tmp_path / "other", "--train.seed", 1).status == 0
    assert "the records differ" in differences(run_folder, tmp_path / "other")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    command: Command, config_file: Path, run_folder: Path, tmp_path: Path, number: int, status: int
) -> None:
    workdir = tmp_path / "run"
    words = ["--config", str(config_file), "--workdir", str(workdir)]
    process = subprocess.Popen(
        [sys.executable, "scripts/train.py", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": ""},
    )
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):  # until step 10 of 44 is done
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("stopped and saved at step ")
    stopped_at = int(err.splitlines()[-1].split()[5])
    assert 10 <= stopped_at < 44
    assert (workdir / "checkpoints" / str(stopped_at)).exists()
    assert (workdir / "curves.png").exists()

    result = command("train", *words)
    assert result.status == 0
    assert f"resuming from step {stopped_at} of 44" in result.err
    assert differences(run_folder, workdir) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time by which `train` ends a run, in seconds."""
    fake = SimpleNamespace(now=0.0, monotonic=lambda: fake.now)
    monkeypatch.setattr("flaxcnn.cli.train.time", fake)
    return fake


def test_a_signal_is_told_of_though_its_save_outlasts_the_deadline(
    command: Command, config_file: Path, tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def slow_save(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        clock.now = 3600.0
        save(*args, **kwargs)

    monkeypatch.setattr(Checkpoints, "save", slow_save)
    words = ("--config", config_file, "--workdir", tmp_path, "--train.save_every", 1, "--train.max_minutes", 60)
    assert command("train", *words).status == 143


def test_the_deadline_counts_the_listing_of_the_data(
    command: Command, config_file: Path, tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_build(config: Config) -> Experiment:
        clock.now = 3600.0
        return build(config)

    monkeypatch.setattr("flaxcnn.cli.train.build", slow_build)
    result = command("train", "--config", config_file, "--workdir", tmp_path, "--train.max_minutes", 60)
    assert result.status == 0
    assert "stopped before the first update" in result.err.splitlines()[-1]


def test_a_signal_in_the_last_evaluation_leaves_the_run_unfinished(
    command: Command, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config", config_file, "--workdir", tmp_path, "--train.eval_every", "1000"]
    with monkeypatch.context() as patch:
        for name in ("evaluate", "evaluate_with_outputs"):
            patch.setattr(f"flaxcnn.cli.train.{name}", signalled(getattr(train, name)))
        result = command("train", *words)
    assert result.status == 128 + signal.SIGTERM
    assert "stopped and saved at" in result.err.splitlines()[-1]
    assert not any(record["split"] == "eval" for record in records(tmp_path))
    assert command("train", *words).status == 0
    assert [record["split"] for record in records(tmp_path)].count("eval") == 1


def signalled(function: Callable[..., Any]) -> Callable[..., Any]:
    def first(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    return first


@pytest.mark.parametrize("seconds", [0.4, 0.8])
def test_ctrl_c_while_it_starts(config_file: Path, tmp_path: Path, seconds: float) -> None:
    words = ["--config", str(config_file), "--workdir", str(tmp_path / "run"), "--train.epochs", "100000"]
    process = subprocess.Popen([sys.executable, "scripts/train.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=20) in (-signal.SIGINT, 130)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 2), (2, 1)])
def test_kills_at_any_moment_change_nothing(processes: int, kills: int) -> None:
    """Of two processes one is killed, and the other must say so and end."""
    words = ["benchmarks/kill_and_resume.py", "--kills", str(kills), "--epochs", "2", "--processes", str(processes)]
    # Its many steps, and the few programs that it keeps on disk, are worth the time of XLA's optimisations.
    environment = {**os.environ, "XLA_FLAGS": ""}
    result = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"lenet: {kills} kills, " in result.stdout
