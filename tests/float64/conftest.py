"""These tests need float64, which JAX switches on for a whole process: see `tests/test_float64.py`."""

from __future__ import annotations

import jax

collect_ignore_glob = [] if jax.config.jax_enable_x64 else ["test_*.py"]
