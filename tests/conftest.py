"""What every test runs under."""

from __future__ import annotations

import os

# Tests compile many programs and run each once: without XLA's optimisations they take half the time.
# `XLA_FLAGS= pytest` tests the optimised programs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
