"""Memory for batches: that of one that nobody holds any more serves again.

A batch is too large for the C library to keep its memory, and the system's fresh pages cost more than all else that
the loader does.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np


class Buffers:
    """What arrays are made in.

    Args:
        most: how many unused ones to keep; more, if somebody held more, go back to the system.
    """

    def __init__(self, most: int) -> None:
        self._left: deque[np.ndarray] = deque(maxlen=most)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of whatever was there before."""
        num_bytes = math.prod(shape) * dtype.itemsize
        try:
            memory = self._left.pop()
        except IndexError:
            memory = None
        if memory is None or memory.nbytes != num_bytes:
            memory = np.empty(num_bytes, np.uint8)
        # NumPy's views hold the first array of a chain that is over a foreign buffer, here `whole`: when it is freed,
        # there are none left, in Python, on its way to a device, or anywhere else that counts references.
        whole = np.frombuffer(memory.data, dtype)
        weakref.finalize(whole, self._left.append, memory).atexit = False
        return whole.reshape(shape)
