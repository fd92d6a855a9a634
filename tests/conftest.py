"""What every test runs under."""

from __future__ import annotations

import os

# Tests compile many small programs once each: more than one thread a worker only adds noise.
os.environ.setdefault("OMP_NUM_THREADS", "1")
