"""A profile of chosen steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax


@contextmanager
def profiled(
    step: Callable[[Any, Any], Any], first: int, last: int, folder: Path, *, start: int = 0
) -> Iterator[Callable[[Any, Any], Any]]:
    """A step that records the devices and the host from one step to another, for TensorBoard's profiler.

    Args:
        step: state and batch to state and metrics.
        first: step to record, from 1.
        last: step to record.
        folder: to write to.
        start: steps made before.
    """
    made, recording = start, False

    def run(state: Any, batch: Any) -> Any:
        nonlocal made, recording
        made += 1
        if made == first:
            jax.profiler.start_trace(str(folder))
            recording = True
        result = step(state, batch)
        if recording and made == last:
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
            recording = False
        return result

    try:
        yield run
    finally:
        if recording:
            jax.profiler.stop_trace()
