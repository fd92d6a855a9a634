"""Checkpoints by Orbax: written beside the training, and whole or not there at all."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers as policies

from flaxcnn.errors import UserError, first_line

_ASIDE = ".replaced"


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read."""


def quality_of(metrics: Mapping[str, float], metric: str) -> float:
    """A metric as a number that is high where the network is good."""
    return -metrics[metric] if metric.endswith("loss") else metrics[metric]


class Checkpoints:
    """The checkpoints of a run: the latest `keep`, and the one that evaluated best.

    A checkpoint is a directory named by its step that holds `state` (a pytree of arrays) and
    `progress` (JSON: where in the data and in the metrics the run was). Orbax writes it under another
    name and renames it when it is complete, so that a process that dies leaves whole checkpoints only.

    Args:
        directory: created if need be.
        keep: how many of the latest stay, beside the best.
        best_metric: by which the best is chosen; a loss is best when low, all else when high.
        read_only: look, and change nothing: for reading beside a run that goes on.

    Raises:
        CheckpointError: when the directory cannot be written.
    """

    def __init__(self, directory: Path, *, keep: int = 3, best_metric: str = "top1", read_only: bool = False):
        self.directory = directory.absolute()
        self._read_only = read_only
        _quieten_orbax()
        quality = functools.partial(quality_of, metric=best_metric)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
            best_fn=quality,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._check_metrics()
        with _clear_errors(f"cannot write checkpoints to {self.directory}"):
            self._on_one_process(self._put_back)
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=options,
                item_handlers={"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()},
            )

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the checkpoint that evaluated best, or None before the first."""
        return self._manager.best_step()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self, step: int, state: Any, progress: Mapping[str, Any], *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Start to write a checkpoint; the arrays may be donated as soon as this returns.

        One of the same step, saved when its evaluation was interrupted, is replaced.

        Args:
            step: its name.
            state: a pytree of arrays.
            progress: JSON-serialisable.
            metrics: of an evaluation of this state, by which the best checkpoint is chosen.

        Raises:
            CheckpointError: when this or the previous checkpoint cannot be written.
        """
        with _clear_errors(f"cannot write a checkpoint to {self.directory}"):
            if step in self.steps():
                self._on_one_process(lambda: self._put_aside(step))
                self._manager.reload()
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)),
                metrics=dict(metrics) if metrics is not None else None,
                force=True,
            )

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Read a checkpoint.

        Args:
            step: which.
            like: a state of the same structure, shapes and shardings; arrays or `jax.ShapeDtypeStruct`.

        Returns:
            The state and its progress.

        Raises:
            CheckpointError: when it is incomplete or of another model.
        """
        with self._reading(step) as path:
            _check_whole(path)
            _check_same(path, self._manager.item_metadata(step)["state"], like)
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore())
            )
        return restored["state"], restored["progress"]

    def restore_variables(self, step: int, like: Mapping[str, Any], *, average: bool = False) -> dict[str, Any]:
        """Read a checkpoint's parameters and statistics, and not the optimiser's state.

        Args:
            step: which.
            like: `{"params": ..., "batch_stats": ...}` of the same structure and shapes; arrays or
                `jax.ShapeDtypeStruct`.
            average: read their moving average.

        Returns:
            The variables.

        Raises:
            CheckpointError: when it is incomplete or of another model.
        """
        variables = {name: like.get(name, {}) for name in ("params", "batch_stats")}
        wanted = {"average": variables} if average else variables
        with self._reading(step) as path:
            _check_whole(path)
            saved = self._manager.item_metadata(step)["state"]
            _check_same(path, {name: saved[name] for name in wanted}, wanted)
            # Wherever they were saved from, to a device there is.
            here = jax.tree.map(lambda _: SingleDeviceSharding(jax.local_devices()[0]), wanted)
            args = ocp.args.PyTreeRestore(
                wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted, here),
                partial_restore=True,
            )
            restored = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(path / "state", args=args)
            return restored["average"] if average else restored

    def close(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            CheckpointError: when it cannot be.
        """
        with _clear_errors(f"cannot write a checkpoint to {self.directory}"):
            self._manager.wait_until_finished()
            self._manager.close()
            self._on_one_process(self._put_back)

    def _on_one_process(self, change: Callable[[], None]) -> None:
        """Change files once, before any process goes on."""
        if self._read_only:
            return
        if jax.process_index() == 0:
            change()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoint files")

    def _put_aside(self, step: int) -> None:
        """Make room for a checkpoint of a step that has one; should the process die, `_put_back` undoes it."""
        path = self.directory / str(step)
        path.rename(path.with_suffix(_ASIDE))

    def _put_back(self) -> None:
        """Restore checkpoints whose replacement was not completed, and delete those that were replaced."""
        for aside in self.directory.glob(f"*{_ASIDE}"):
            path = aside.with_suffix("")
            if path.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(path)

    def _check_metrics(self) -> None:
        """Name the checkpoint whose metrics are cut short; Orbax reads those of all before it opens any."""
        names = os.listdir(self.directory) if self.directory.exists() else []  # noqa: PTH208
        for step in (int(name) for name in names if name.isdecimal()):  # not those that are being written
            with self._reading(step) as path, contextlib.suppress(FileNotFoundError):  # no metrics, or just deleted
                json.loads((path / "metrics" / "metrics").read_text())

    @contextmanager
    def _reading(self, step: int) -> Iterator[Path]:
        path = self.directory / str(step)
        remedy = "choose another" if self._read_only else "delete that folder to go on from an earlier one"
        with _clear_errors(f"cannot read checkpoint {path} ({remedy})"):
            yield path


def _check_whole(checkpoint: Path) -> None:
    """Read everything once: where Orbax meets a broken file halfway, its threads print tracebacks of their own."""
    for pattern in ("progress/metadata", "state/_METADATA", "state/_sharding", "state/array_metadatas/*"):
        for file in checkpoint.glob(pattern):
            json.loads(file.read_text())
    (checkpoint / "state" / "manifest.ocdbt").stat()  # without it the store would pass for an empty one
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{checkpoint}/state/"}).result()
    for key in store.list().result():
        store.read(key).result()


@functools.cache
def _quieten_orbax() -> None:
    """Leave failures to the exceptions that report them."""
    # Every phase of every save, and of a failed read each array's own failure, is logged.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # After a failed write, threads still answer to an event loop that is closed by then.
    previous = sys.unraisablehook

    def report(failure: sys.UnraisableHookArgs) -> None:
        if str(failure.exc_value) != "Event loop is closed":
            previous(failure)

    sys.unraisablehook = report


def _check_same(path: Path, saved: Any, like: Any) -> None:
    """Raise unless the saved arrays have the names and shapes of `like`."""
    found, wanted = _shapes(saved), _shapes(like)
    # Parameters first: a layer's name says more than an optimiser's array.
    for name in sorted(found.keys() | wanted.keys(), key=lambda name: (not name.startswith("params"), name)):
        if found.get(name) != wanted.get(name):
            raise CheckpointError(
                f"checkpoint {path} is of another model or optimizer: {name} is {found.get(name, 'absent')} there "
                f"and {wanted.get(name, 'absent')} here"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(key, simple=True, separator="."): tuple(leaf.shape) for key, leaf in leaves}


@contextmanager
def _clear_errors(message: str) -> Iterator[None]:
    """Turn whatever Orbax raises about files, plain `Exception` included, into one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = error.__cause__ or error
        raise CheckpointError(f"{message}: {type(reason).__name__}: {first_line(reason)}") from error
