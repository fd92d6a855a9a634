"""What a process may use of the machine, and work in threads."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from flaxcnn.data import machine
from flaxcnn.data.machine import MAX_DEFAULT_THREADS, default_threads, in_threads, memory


@pytest.fixture(autouse=True)
def control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the limits, of which this machine may have some."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda self: OWN_GROUP if str(self) == "/proc/self/cgroup" else read(self))
    return tmp_path


OWN_GROUP = "1:name=systemd:/\n0::/jobs/7\n"
read = Path.read_text


def test_a_thread_for_each_core_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert default_threads() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert default_threads() == MAX_DEFAULT_THREADS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


def test_limits_of_a_container(control_groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = control_groups / "jobs" / "7"
    own.mkdir(parents=True)
    for group, cores, size in ((control_groups, "max 100000", "max"), (own, "max 100000", "max")):
        (group / "cpu.max").write_text(f"{cores}\n")
        (group / "memory.max").write_text(f"{size}\n")
    assert (default_threads(), memory()) == (12, physical)
    (own / "cpu.max").write_text("250000 100000\n")  # two and a half cores
    (own.parent / "memory.max").write_text("1048576\n")
    assert (default_threads(), memory()) == (3, 2**20)
    (control_groups / "cpu.max").write_text("50000 100000\n")
    assert default_threads() == 1


def test_results_come_in_order_and_few_are_begun_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "default_threads", lambda: 3)
    begun, names = [], set()

    def work(item: int) -> int:
        begun.append(item)
        names.add(threading.get_ident())
        time.sleep(1e-3 * (item % 3))
        return item * item

    results = in_threads(work, iter(range(100)))
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert len(begun) <= 10 + 2 * 3 + 1
    assert list(results) == [i * i for i in range(10, 100)]
    assert sorted(begun) == list(range(100)) and 1 < len(names) <= 3
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [2, 1, 0]))
