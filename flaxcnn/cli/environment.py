"""What a command sets up in JAX before it computes."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def set_up_jax(device: str = "auto") -> None:
    """Choose the platform, and keep compiled programs on disk so that a second start is fast.

    `JAX_COMPILATION_CACHE_DIR` names another folder for them; empty, it switches the cache off.

    Args:
        device: "cpu" leaves accelerators alone altogether.
    """
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "flaxcnn" / "compiled"))
