"""Runs the files of tests/float64, each in a process of its own with JAX_ENABLE_X64=1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "float64").glob("test_*.py"))


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "slow"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_float64(file: Path, slow: bool) -> None:
    markers = "slow" if slow else "not slow"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rs", "-m", markers, str(file)],
        cwd=file.parents[2],
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    tail = "\n".join(run.stdout.splitlines()[-60:])
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(f"{file.name}: {tail.splitlines()[-1]}")
    assert run.returncode == 0, tail + run.stderr
