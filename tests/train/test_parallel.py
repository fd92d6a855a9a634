"""The same numbers on any number of devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_four_devices() -> None:
    """The number of devices is fixed when JAX starts: `four_devices.py` runs in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            str(Path(__file__).parent / "four_devices.py"),
        ],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
