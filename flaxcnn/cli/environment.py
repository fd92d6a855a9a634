"""What a command sets up in JAX before it computes."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import jax

from flaxcnn.config import ConfigError, DistributedConfig
from flaxcnn.errors import first_line

_LOST_AFTER = 30
"""Seconds without a sign of life after which JAX ends the other processes of a run."""


def set_up_jax(device: str = "auto") -> None:
    """Choose the platform, and keep compiled programs on disk so that a second start is fast.

    `JAX_COMPILATION_CACHE_DIR` names another folder for them; empty, it switches the cache off.

    Args:
        device: "cpu" leaves accelerators alone altogether.
    """
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    give_cpu_devices_threads()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "flaxcnn" / "compiled"))


def give_cpu_devices_threads() -> None:
    """Have threads enough where a flag makes several devices of one CPU; to be called before JAX finds its devices.

    They share as many as there are cores, and each holds one for every exchange that it waits in: with all of them
    held, those that others wait for do not come. `NPROC` is where XLA's CPU client reads how many it may start.
    """
    flags = re.findall(r"--xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    devices = max(getattr(jax.config, "jax_num_cpu_devices", 1), int(flags[-1]) if flags else 1)
    wanted = 8 * devices  # ResNet-18 over eight needed fewer than four a device, and more of them cost no time
    if devices > 1 and int(os.environ.get("NPROC") or 0) < wanted:
        os.environ["NPROC"] = str(wanted)


def return_freed_memory() -> None:
    """Give the system back what was freed: glibc keeps up to a gigabyte that XLA's compiler worked in."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def join_processes(config: DistributedConfig) -> None:
    """Find the other processes of the run, and wait for them.

    Raises:
        ConfigError: when they cannot be found.
    """
    if config.coordinator is None:
        return
    address = None if config.coordinator == "auto" else config.coordinator
    try:
        jax.distributed.initialize(
            address, config.num_processes, config.process_id, heartbeat_timeout_seconds=_LOST_AFTER
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"distributed.coordinator {config.coordinator}: {first_line(error)}") from error
