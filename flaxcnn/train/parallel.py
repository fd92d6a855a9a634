"""Arrangements of a step over devices: one program over all of them, parameters sharded too, or a program a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


class DataParallel:
    """State on every device, each batch split over them; BatchNorm sees the whole batch.

    Args:
        devices: None for all there are, of every process.
    """

    axis_name: str | None = None
    """What `make_train_step` is told: the axis a step is mapped over, if it is."""

    def __init__(self, devices: Sequence[Any] | None = None):
        self.mesh = Mesh(np.asarray(devices or jax.devices()), (AXIS,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.split = NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def device_count(self) -> int:
        """Devices that share a batch: they must divide its size."""
        return self.mesh.size

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the devices can share evenly."""
        return -(-batch_size // self.device_count) * self.device_count

    def state_sharding(self, state: Any) -> Any:
        """Where the arrays of a pytree live, as a pytree of shardings."""
        return jax.tree.map(lambda _: self.replicated, state)

    def put_state(self, state: Any) -> Any:
        """Copy a pytree of arrays, the same in every process, to where its arrays live."""
        return jax.device_put(jax.device_get(state), self.state_sharding(state))

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Spread this process's part of a batch, arrays (n, ...), over its devices."""
        return {name: jax.make_array_from_process_local_data(self.split, array) for name, array in batch.items()}

    def jit_step(self, step: Callable[..., Any], state: Any) -> Any:
        """Jit a training step.

        Args:
            step: `(state, batch, ...)` to the new state and metrics, a pure function. The new state takes the old
                one's memory.
            state: one, for its structure and shapes.
        """
        return jax.jit(step, out_shardings=(self.state_sharding(state), self.replicated), donate_argnums=0)

    def jit(self, function: Callable[..., Any]) -> Any:
        """Jit a pure function of states and batches whose results every device gets."""
        return jax.jit(function, out_shardings=self.replicated)


class FullySharded(DataParallel):
    """As `DataParallel`, with each large array of the state split over the devices between steps.

    Each device keeps a share of parameters and moments; within a step the parameters are gathered.
    """

    min_size = 1024
    """Elements from which an array is worth splitting."""

    def jit_step(self, step: Callable[..., Any], state: Any) -> Any:
        """Jit a training step."""

        def gathered(state: Any, *more: Any) -> Any:
            # Else the compiler would split the layers' arithmetic as their parameters are, and move activations about.
            whole = super(FullySharded, self).state_sharding(state.params)
            return step(state.replace(params=jax.lax.with_sharding_constraint(state.params, whole)), *more)

        return super().jit_step(gathered, state)

    def state_sharding(self, state: Any) -> Any:
        """Where the arrays of a pytree live: split along their longest axis that the devices divide."""
        return jax.tree.map(self._sharding, state)

    def _sharding(self, array: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(array.shape) if length % self.device_count == 0]
        if array.size < self.min_size or not axes:
            return self.replicated
        longest = max(axes, key=lambda axis: array.shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, AXIS))


class PerDevice(DataParallel):
    """A program a device, as `pmap` and DistributedDataParallel have it: BatchNorm sees a device's share of the batch.

    The step is made with `axis_name`; a model that is too shares BatchNorm's statistics between the devices. It is
    `jax.shard_map`, which `pmap` is built on, so that a state looks the same, and is saved the same, as in the others.
    """

    axis_name = AXIS

    def jit_step(self, step: Callable[..., Any], state: Any) -> Any:
        """Jit a training step made for this axis."""

        def mapped(state: Any, batch: Any, *more: Any) -> Any:
            everywhere = PartitionSpec()
            in_specs = (everywhere, PartitionSpec(AXIS), *[everywhere] * len(more))
            # That results are the same on every device, the step sees to: it averages gradients and sums metrics.
            per_device = jax.shard_map(step, mesh=self.mesh, in_specs=in_specs, out_specs=everywhere, check_vma=False)
            return per_device(state, batch, *more)

        return super().jit_step(mapped, state)


class SharedStop:
    """Whether any process was asked to stop, and why: all hear it before the same step.

    Args:
        devices: of all processes.
        stop: why this one was asked, a number above 0, or 0 while it was not. Where reasons differ the highest counts.

    Attributes:
        reason: that the processes stopped for; 0 before.
    """

    def __init__(self, devices: DataParallel, stop: Callable[[], int]):
        self.reason = 0
        self._devices, self._stop = devices, stop
        self._highest = devices.jit(lambda reasons: reasons.max())
        self._pending: list[jax.Array] = []

    def __call__(self) -> bool:
        """Ask; every process must, equally often."""
        self.reason = self.reason or self._ask()
        return self.reason > 0

    def _ask(self) -> int:
        if jax.process_count() == 1:
            return self._stop()
        reasons = np.full(len(self._devices.mesh.local_devices), self._stop(), np.int32)
        self._pending.append(self._highest(self._devices.put_batch({"reason": reasons})["reason"]))
        # Two questions late, so that no device waits for the answer.
        return int(self._pending.pop(0)) if len(self._pending) > 2 else 0
