"""Data-parallel compilation of a step over the devices there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class DataParallel:
    """State on every device, each batch split over them; BatchNorm sees the whole batch.

    Args:
        devices: None for all there are.
    """

    def __init__(self, devices: Sequence[Any] | None = None):
        self.mesh = Mesh(np.asarray(devices or jax.devices()), ("data",))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.split = NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def device_count(self) -> int:
        """Devices that share a batch: they must divide its size."""
        return self.mesh.size

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the devices can share evenly."""
        return -(-batch_size // self.device_count) * self.device_count

    def put_state(self, state: Any) -> Any:
        """Copy a pytree of arrays to every device."""
        return jax.device_put(state, self.replicated)

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Spread this process's part of a batch, arrays (n, ...), over its devices."""
        return {name: jax.make_array_from_process_local_data(self.split, array) for name, array in batch.items()}

    def jit(self, step: Callable[..., Any], *, donate_state: bool = False) -> Any:
        """Jit `step(state, batch)`.

        Args:
            step: a pure function; what it returns is replicated.
            donate_state: let the new state take the old one's memory.
        """
        return jax.jit(
            step,
            in_shardings=(self.replicated, self.split),
            out_shardings=self.replicated,
            donate_argnums=(0,) if donate_state else (),
        )
