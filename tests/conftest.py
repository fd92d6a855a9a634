"""What every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.programs import forget_programs

# Tests compile many programs and run each once: without XLA's optimisations they take half the time.
# `XLA_FLAGS= pytest` tests the optimised programs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


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
