"""Batches made by processes: as by threads, with their positions and errors, and what becomes of the processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flaxcnn.data import ArraySource, CachedSource, DataError, TrainTransform, digits, folder_splits, train_batches
from flaxcnn.data.manifest import manifest_splits
from tests.data.test_loader import assert_same, take

VIEW = TrainTransform(8, kind="pad_crop").pixels


def batches_of(source=None, view=VIEW, **options):
    source = digits("train") if source is None else source
    return train_batches(source, view, **{"batch_size": 64, "seed": 1, **options})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    digit = digits("train")
    for i in range(24):
        (tmp_path / "images" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        digit[i]["image"].save(tmp_path / "images" / f"class{i % 2}" / f"{i:03}.png")
    return tmp_path / "images"


def processes() -> dict[int, str]:
    """This process's children that load images, and in which state each is."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = stat.with_name("cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == os.getpid() and "flaxcnn.data.processes" in command:
            found[int(stat.parent.name)] = state
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux which processes there are")


def test_processes_make_the_batches_of_threads_from_any_position() -> None:
    with closing(batches_of(repeats=2)) as batches:
        expected = take(batches, 40)  # over the end of an epoch
    with closing(batches_of(repeats=2, num_processes=3)) as batches:
        assert_same(take(batches, 25), expected[:25])
        state = json.loads(json.dumps(batches.get_state()))
        batches.set_state({"next_index": 7})
        assert_same(take(batches, 4), expected[7:11])
    for options in ({"num_threads": 2}, {"num_processes": 1}):
        with closing(batches_of(repeats=2, **options)) as batches:
            batches.set_state(state)
            assert_same(take(batches, 15), expected[25:])
            assert batches.get_state() == {"next_index": 40}


@pytest.mark.parametrize(
    "kind", ["folder", "cache", "several labels", "floats", "shard", "balanced", "function of this file", "opencv"]
)
def test_whatever_is_loaded(kind: str, folder: Path, tmp_path: Path) -> None:
    source, view, options = folder_splits(folder)["all"](), VIEW, {}
    if kind == "cache":
        source = CachedSource(source, tmp_path / "cache")
    elif kind == "several labels":
        lines = [
            json.dumps({"path": str(file), "labels": ["a", "b"][: i % 3]})
            for i, file in enumerate(folder.rglob("*.png"))
        ]
        (tmp_path / "all.jsonl").write_text("\n".join(lines))
        source = manifest_splits(tmp_path / "all.jsonl")["all"]()
    elif kind == "floats":
        view = TrainTransform(8, erase=1.0)
    elif kind == "function of this file":
        factor = 3
        view = lambda image, rng: np.asarray(image) * factor + rng.integers(9)  # noqa: E731
    elif kind == "opencv":
        opencv = pytest.importorskip("flaxcnn.data.opencv", reason="OpenCV is not installed")
        source, view = replace(source, decode=opencv.decode), TrainTransform(8).pixels
    else:
        options = {"shard": {"shard": (1, 2)}, "balanced": {"balanced": True}}.get(kind, {})
    with (
        closing(batches_of(source, view, batch_size=6, num_threads=1, **options)) as expected,
        closing(batches_of(source, view, batch_size=6, num_processes=2, **options)) as batches,
    ):
        assert_same(take(batches, 6), take(expected, 6))


def test_what_is_held_of_a_batch_is_never_written_again() -> None:
    with closing(batches_of(num_processes=1)) as batches:
        held = [{name: (array, array.copy()) for name, array in batch.items()} for batch in take(batches, 3)]
        take(batches, 12)
        for batch in held:
            for array, copy in batch.values():
                np.testing.assert_array_equal(array, copy)
        assert all(array.flags.writeable for array, _ in held[0].values())


def test_a_broken_image_is_named_and_the_next_batch_is_the_next(folder: Path) -> None:
    broken = folder / "class1" / "007.png"
    broken.write_bytes(broken.read_bytes()[:60])
    source = folder_splits(folder)["all"]()

    def outcomes(**options) -> list[object]:
        found = []
        with closing(batches_of(source, batch_size=2, **options)) as batches:
            while len(found) < 24:  # two epochs
                try:
                    found.append(next(batches)["label"].tolist())
                except DataError as error:
                    found.append(str(error))
        return found

    by_processes = outcomes(num_processes=2)
    assert by_processes == outcomes(num_threads=2)
    assert sum(isinstance(each, str) and each.startswith(f"{broken}: ") for each in by_processes) == 2


class OddError(Exception):
    """Cannot be sent from process to process."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"number {number}")


def odd(image, rng) -> np.ndarray:
    raise OddError(number=3)


def wrong(image, rng) -> np.ndarray:
    raise ZeroDivisionError("of the transform")


def test_errors_of_a_transform_arrive_with_their_place() -> None:
    with closing(batches_of(view=wrong, num_processes=1)) as batches, pytest.raises(ZeroDivisionError) as caught:
        next(batches)
    notes = "".join(caught.value.__notes__)
    assert re.search(r"in the transform of digits\[\d+\]", notes)
    assert "in wrong" in notes and "tests/data/test_processes.py" in notes
    with closing(batches_of(view=odd, num_processes=1)) as batches:
        with pytest.raises(RuntimeError, match=r"(?m)^OddError: number 3$") as caught:
            next(batches)
        assert "in odd" in "".join(caught.value.__notes__)


def test_a_time_limit_of_the_program_s_sockets_is_not_theirs() -> None:
    socket.setdefaulttimeout(0.05)
    try:
        with closing(batches_of(view=large, batch_size=8, num_processes=1)) as batches:
            assert next(batches)["image"].shape == (8, 1000, 1000, 3)
            assert next(batches)["image"].shape == (8, 1000, 1000, 3)
    finally:
        socket.setdefaulttimeout(None)


def large(image, rng) -> np.ndarray:
    time.sleep(0.02)
    return np.zeros((1000, 1000, 3), np.uint8)


@needs_proc
def test_processes_end_with_their_batches(capfd: pytest.CaptureFixture[str]) -> None:
    batches = batches_of(num_processes=2)
    assert not processes()
    batches.start_prefetch()
    take(batches, 3)
    assert len(processes()) == 2
    batches.close()
    assert not processes()
    with pytest.raises(ValueError, match="closed"):
        next(batches)
    batches.close()
    batches = batches_of(np_source(200_000), num_processes=2)  # more than a socket holds
    batches.start_prefetch()
    batches.close()  # before they have read it
    assert not processes() and capfd.readouterr().err == ""
    batches = batches_of(view=pause, batch_size=8, num_processes=2)
    batches.start_prefetch()
    while len(processes()) < 2:
        time.sleep(0.01)
    batches.close()  # while they make the first
    assert not processes()


def np_source(examples: int) -> ArraySource:
    images, names = np.zeros((examples, 2, 2), np.uint8), tuple(map(str, range(examples)))
    return ArraySource(images, np.arange(examples) % 2, ("a", "b"), names)


def pause(image, rng) -> np.ndarray:
    time.sleep(0.1)
    return np.asarray(image)


@needs_proc
def test_signals_are_the_reader_s_and_a_killed_process_is_told_of() -> None:
    with closing(batches_of(num_processes=2)) as batches:
        take(batches, 4)
        assert all(os.getsid(pid) != os.getsid(0) for pid in processes())  # a terminal's Ctrl-C is not for them
        for pid in processes():
            os.kill(pid, signal.SIGTERM)
        take(batches, 20)
        os.kill(next(iter(processes())), signal.SIGKILL)
        with pytest.raises(DataError, match=r"^a process that loads images was ended by SIGKILL; if memory ran out, "):
            take(batches, 40)
    assert not processes()


READER = """
import os, signal, sys
from tests.data.test_processes import batches_of, processes
batches = batches_of(num_processes=2)
next(batches), next(batches), next(batches)
print(*processes(), flush=True)
if sys.argv[1:]:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_proc
@pytest.mark.parametrize("killed", [False, True])
def test_processes_end_with_a_reader_that_closed_nothing(killed: bool, tmp_path: Path) -> None:
    script = tmp_path / "reader.py"  # whose own work is behind no `if __name__ == "__main__":`
    script.write_text(READER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, script, *["killed"] * killed], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL if killed else 0, "")
    left = ended.stdout.split()
    assert len(left) == 2
    deadline = time.monotonic() + 30
    while any(map(runs, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, left))


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # nobody may have asked yet
    except OSError:
        return False


def test_a_process_that_cannot_begin_is_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    message = r"(?m)^a process that loads images ended with status 1, for the reason above$"
    with closing(batches_of(Absent(), num_processes=1)) as batches, pytest.raises(DataError, match=message):
        next(batches)
    assert "there is nothing in the file" in capfd.readouterr().err


class Absent:
    """A source that another process cannot make anew, for an error that would also tell of a closed connection."""

    labels, class_names = np.zeros(100, np.int64), ("a",)

    def __len__(self) -> int:
        return 100

    def __reduce__(self) -> tuple:
        return _import, ()


def _import() -> None:
    raise EOFError("there is nothing in the file")


def test_what_processes_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match=r"^num_processes: expected 0 or more, .* got -1$"):
        batches_of(num_processes=-1)
    with pytest.raises(ValueError, match=r"^num_processes: .*instead of num_threads"):
        batches_of(num_processes=1, num_threads=1)
    with pytest.raises(ValueError, match=r"^batch_size: expected"):
        batches_of(batch_size=0, num_processes=2)
    others = threading.active_count()
    with pytest.raises(DataError, match=r"kept in memory cannot be sent .* keep them in a folder"):
        batches_of(CachedSource(digits("train")), num_processes=1)
    assert threading.active_count() == others
