"""What every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from tests.programs import forget_programs

# Tests compile many programs and run each once: without XLA's optimisations they take half the time, and without its
# newer way of emitting loops two thirds of that. A version that does not know a flag would end the process.
# `XLA_FLAGS= pytest` tests the optimised programs.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Forget a module's compiled programs at its end: a worker that keeps them all grows to many gigabytes."""
    yield
    forget_programs()


@pytest.fixture
def forget_programs_after() -> Iterator[None]:
    """Forget them after each test, where one test compiles half a gigabyte of them."""
    yield
    forget_programs()
