"""Memory in pages of 2 MiB instead of 4 KiB, where Linux gives them to those who ask."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_WHO_GETS_THEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_VARIABLE = "GLIBC_TUNABLES"


def start_again_with_huge_pages() -> None:
    """Replace the process by the same command with glibc's allocator asking for huge pages, once.

    Every training step takes its memory from the system and gives it back, and the first touch of each page costs: a
    tenth to a third of a step on a CPU. glibc reads its tunables only when a process starts. A user's own
    `GLIBC_TUNABLES`, even an empty one, is left alone, and so is a system that gives huge pages to all or to none.
    """
    if _VARIABLE in os.environ or not _WHO_GETS_THEM.is_file() or "[madvise]" not in _WHO_GETS_THEM.read_text():
        return
    os.environ[_VARIABLE] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
