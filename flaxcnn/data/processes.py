"""Processes that make batches, for machines with more cores than the threads of one interpreter can use.

Grain's threads ask them, a thread one at a time, so that order, position and errors are as without them. They are
fresh interpreters, which import flaxcnn and nothing of the program that started them, and are spoken to over a socket:
what they make needs no room in /dev/shm, and they end when the other end is closed, however that came about.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

import cloudpickle
import grain
import numpy as np

from flaxcnn.data.buffers import Buffers
from flaxcnn.data.images import DataError

Batch = dict[str, np.ndarray]
MakeBatch = Callable[[int], Batch]


class ProcessBatches:
    """Batches as an iterator over steps gives them, each made by one of several processes.

    Args:
        new: makes the function from a step to its batch; each process calls it for a function of its own.
        processes: how many, each making a batch at a time.
        prefetched: makes the iterator from the function from a step to its batch.

    Raises:
        DataError: (from the iterator) an image cannot be read, or a process has ended.
    """

    def __init__(
        self,
        new: Callable[[], MakeBatch],
        processes: int,
        prefetched: Callable[[MakeBatch], grain.DatasetIterator[Batch]],
    ) -> None:
        pickled = cloudpickle.dumps(new)
        buffers = defaultdict[str, Buffers](lambda: Buffers(most=processes + 2))
        self._workers = [_Worker(pickled, buffers) for _ in range(processes)]
        self._idle = idle = queue.SimpleQueue[_Worker]()
        for worker in self._workers:
            idle.put(worker)

        def batch(step: int) -> Batch:
            worker = idle.get()
            try:
                return worker.batch(step)
            finally:
                idle.put(worker)

        self._batches = prefetched(batch)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """The position, as of batches that threads make."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position, of these batches or of threads'."""
        self._batches.set_state(state)

    def start_prefetch(self) -> None:
        """Start the processes ahead of the first batch."""
        self._batches.start_prefetch()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()
        self._batches.close()
        for worker in [self._idle.get() for _ in self._workers]:  # no thread is at work with one any more
            worker.wait()
            self._idle.put(worker)  # for threads that still wait for one, to learn that it has ended


class _Worker:
    """A process that makes batches; it starts with the first. One thread at a time may ask it."""

    def __init__(self, pickled: bytes, buffers: dict[str, Buffers]) -> None:
        self._pickled, self._buffers = pickled, buffers
        self._socket, self._theirs = socket.socketpair()
        for each in (self._socket, self._theirs):
            each.settimeout(None)  # whatever limit the program has set for its own
        self._stream = self._socket.makefile("rwb")
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._stopped = threading.Lock(), False

    def batch(self, step: int) -> Batch:
        try:
            if self._start():
                pickle.dump(self._pickled, self._stream)
            pickle.dump(step, self._stream)
            self._stream.flush()
            answer = pickle.load(self._stream)
            if not isinstance(answer, Exception):
                return {name: self._receive(self._buffers[name], *spec) for name, spec in answer.items()}
        except (EOFError, OSError) as error:
            raise self._ended(error) from error
        except BaseException:
            self.stop()  # what is left of its answer would be taken for the next
            raise
        raise answer

    def stop(self) -> None:
        """Have the process end, and whoever waits for it stop to wait."""
        with self._lock:
            self._stopped = True
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def wait(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            self._process.wait()
        with contextlib.suppress(OSError):  # of what could not be sent any more
            self._stream.close()
        self._socket.close()
        self._theirs.close()

    def _start(self) -> bool:
        """Whether it was not running yet."""
        with self._lock:
            if self._stopped:
                raise EOFError("the batches are closed")
            if self._process is not None:
                return False
            # In a session of its own it does not see Ctrl-C, and schedulers send SIGTERM to every process of a job:
            # the program that started it may have a checkpoint to write first.
            code = (
                "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                f"sys.path[:] = {[entry for entry in sys.path if isinstance(entry, str)]!r}; "
                "from flaxcnn.data.processes import work; work()"
            )
            with self._theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, str(self._theirs.fileno())],
                    pass_fds=[self._theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            return True

    def _receive(self, buffers: Buffers, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = buffers.empty(shape, dtype)
        if self._stream.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise EOFError
        return array

    def _ended(self, error: Exception) -> DataError:
        self.stop()
        if self._process is None:
            return DataError(f"no process can load images: {error}")
        status = self._process.wait()
        if status >= 0:
            return DataError(f"a process that loads images ended with status {status}, for the reason above")
        advice = "if memory ran out, load by fewer (num_processes, --data.processes)"
        return DataError(f"a process that loads images was ended by {signal.Signals(-status).name}", advice)


def work() -> None:
    """Make the batches that are asked for, until nobody can ask any more."""
    stream = socket.socket(fileno=int(sys.argv[1])).makefile("rwb")
    try:
        pickled = pickle.load(stream)
    except (EOFError, ConnectionError, pickle.UnpicklingError):
        return
    make = pickle.loads(pickled)()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            step = pickle.load(stream)
            try:
                batch = make(step)
            except Exception as error:  # is raised where the batch was asked for
                pickle.dump(_sendable(error), stream)
            else:
                pickle.dump({name: (array.shape, array.dtype) for name, array in batch.items()}, stream)
                for array in batch.values():
                    stream.write(array.reshape(-1).view(np.uint8).data)
            stream.flush()


def _sendable(error: Exception) -> Exception:
    """The error, or one of the same message where it cannot be sent, with its traceback as a note."""
    if not isinstance(error, DataError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is pickled
        sent = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            sent.add_note(note)
        return sent
    return error
