"""Batches that processes make, for machines with more cores than the threads of one interpreter can use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

import grain
import numpy as np
from absl import flags

from flaxcnn.data.images import DataError

Batch = dict[str, np.ndarray]
MakeBatch = Callable[[int], Batch]

_ADVICE = (
    "give them more memory, of which /dev/shm is a part that containers keep small (docker run --shm-size 8g), or load "
    "by threads (num_processes=0, --data.processes 0)"
)


class ProcessBatches:
    """Endless batches, of which process i of n makes i, i + n, i + 2n, ...

    Args:
        new: makes the function from a step to its batch; each process calls it for a function of its own, for what
            one holds (caches, locks, memory) cannot be sent to another.
        processes: how many.
        threads: of each, of which each makes a whole batch.

    Raises:
        DataError: (from the iterator) an image cannot be read, or a process was ended from outside.
    """

    def __init__(self, new: Callable[[], MakeBatch], processes: int, threads: int) -> None:
        self._new, self._processes, self._threads = new, processes, threads
        self._step = 0
        self._batches = self._from(0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            raise ValueError("the batches are closed")
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            reason = f"a process that loads images ended from outside: {error}"
            raise DataError(reason, _ADVICE) from error
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, JSON-serialisable: of threads' batches it is the same."""
        return {"next_index": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self.close()
        self._step = state["next_index"]
        self._batches = self._from(self._step)

    def start_prefetch(self) -> None:
        """Start the processes ahead of the first batch."""
        if self._batches is not None:
            self._batches.start_prefetch()

    def close(self) -> None:
        """End the processes."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _from(self, step: int) -> Any:
        if not flags.FLAGS.is_parsed():  # Grain asks them, and stops where nobody has.
            flags.FLAGS(sys.argv[:1])
        steps = grain.MapDataset.range(step, sys.maxsize).map(_OfThisProcess(self._new))
        threads = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        batches = steps.to_iter_dataset(threads).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=self._processes), _begin_process
        )
        # A thread for `start_prefetch`, which the processes alone do not have.
        return iter(grain.experimental.ThreadPrefetchIterDataset(batches.map(_own), prefetch_buffer_size=1))


class _OfThisProcess:
    """A function that is made anew in the process that it is sent to."""

    def __init__(self, new: Callable[[], MakeBatch]) -> None:
        self._new, self._function = new, new()

    def __reduce__(self) -> tuple[type[Self], tuple[Callable[[], MakeBatch]]]:
        return type(self), (self._new,)

    def __call__(self, step: int) -> Batch:
        return self._function(step)


def _own(batch: Batch) -> Batch:
    """Copied out of the memory that is shared with its process."""
    return {name: np.array(array) for name, array in batch.items()}


def _begin_process(*_: int) -> None:
    """Leave signals to the process that trains, which may have a checkpoint to write first, and end when it does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    threading.Thread(target=lambda: (trainer.join(), os._exit(1)), daemon=True).start()
