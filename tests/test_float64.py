"""Runs the files of tests/float64, each in a process of its own with JAX_ENABLE_X64=1."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "float64").glob("test_*.py"))
WITH_SLOW_TESTS = [file for file in FILES if "slow" in file.read_text()]
pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("torch", "torchvision")),
    reason="PyTorch's packages are the reference (pip install 'flaxcnn[test]')",
)


def run_in_float64(file: Path, markers: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rs", "-m", markers, str(file)],
        cwd=file.parents[2],
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, "\n".join(run.stdout.splitlines()[-60:]) + run.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_float64(file: Path) -> None:
    run_in_float64(file, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("file", WITH_SLOW_TESTS, ids=lambda file: file.stem)
def test_slow_in_float64(file: Path) -> None:
    run_in_float64(file, "slow")
