"""Batches made by processes: the same as by threads, the same positions, and what becomes of the processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flaxcnn.data import CachedSource, DataError, TrainTransform, digits, folder_splits, train_batches
from tests.data.test_loader import assert_same, take

VIEW = TrainTransform(8, kind="pad_crop").pixels


def batches_of(source=None, **options):
    source = digits("train") if source is None else source
    return train_batches(source, VIEW, batch_size=64, seed=1, num_threads=1, **options)


def processes() -> list:
    return multiprocessing.active_children()


def test_processes_make_the_batches_of_threads_from_any_position() -> None:
    with closing(batches_of(repeats=2)) as batches:
        expected = take(batches, 40)  # over the end of an epoch
    with closing(batches_of(repeats=2, num_processes=3)) as batches:
        batches.start_prefetch()
        assert_same(take(batches, 25), expected[:25])
        assert len(processes()) == 3
        state = json.loads(json.dumps(batches.get_state()))
        with closing(batches_of(repeats=2)) as others:
            others.set_state(state)
            assert_same(take(others, 15), expected[25:])
            assert others.get_state() == {"next_index": 40}
            batches.set_state({"next_index": 7})
        assert_same(take(batches, 4), expected[7:11])
    assert not processes()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_batches_are_the_reader_s_own() -> None:
    with closing(batches_of(num_processes=1)) as batches:
        first, second = take(batches, 2)
        kept = first["image"].copy()
        take(batches, 6)
        assert type(first["image"]) is np.ndarray and not np.shares_memory(first["image"], second["image"])
        np.testing.assert_array_equal(first["image"], kept)


def test_a_broken_image_is_named_and_the_processes_end(tmp_path: Path) -> None:
    digit = digits("train")
    for i in range(130):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        digit[i]["image"].save(tmp_path / f"class{i % 2}" / f"{i}.png")
    broken = tmp_path / "class1" / "77.png"
    broken.write_bytes(broken.read_bytes()[:60])
    batches = batches_of(folder_splits(tmp_path)["all"](), num_processes=2)
    with closing(batches), pytest.raises(DataError, match=f"^{re.escape(str(broken))}: "):
        take(batches, 3)
    assert not processes()


def test_signals_are_the_reader_s_and_a_killed_process_is_told_of() -> None:
    with closing(batches_of(num_processes=2)) as batches:
        take(batches, 4)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(processes()[0].pid, number)
        take(batches, 20)
        os.kill(processes()[0].pid, signal.SIGKILL)
        with pytest.raises(DataError, match=r"(?s)^a process that loads images ended .*exit code -9.*--shm-size"):
            take(batches, 40)
    assert not processes()


READER = """
import os, signal, sys
from tests.data.test_processes import batches_of, processes
if __name__ == "__main__":
    batches = batches_of(num_processes=2)
    next(batches), next(batches)
    print(*(process.pid for process in processes()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks Linux which processes there are")
def test_processes_end_with_a_reader_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    left = {int(word) for word in ended.stdout.split()}
    assert len(left) == 2
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if runs(pid)}
        time.sleep(0.1)
    assert not left


def runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_processes_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match=r"^num_processes: expected 0 or more, got -1$"):
        batches_of(num_processes=-1)
    with pytest.raises(ValueError, match=r"^batch_size: expected"):
        train_batches(digits("train"), VIEW, batch_size=0, seed=1, num_processes=2)
    batches = batches_of(CachedSource(digits("train")), num_processes=1)
    with closing(batches), pytest.raises(DataError, match="memory of its own; keep them in a folder"):
        next(batches)
