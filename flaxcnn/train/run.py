"""A run's folder: what is in it, and that only one process at a time, of one config, writes there."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flaxcnn.errors import UserError


class RunError(UserError):
    """A run folder that cannot be used."""


class RunFolder:
    """Paths and small files of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.class_names = self.path / "class_names.json"
        self.examples = self.path / "examples.json"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.curves = self.path / "curves.png"
        self.report = self.path / "report.html"

    def is_being_trained(self) -> bool:
        """Whether a process is writing there now."""
        try:
            with (self.path / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def open(
        self,
        config: Mapping[str, Any],
        *,
        free: Sequence[str],
        class_names: Sequence[str],
        examples: Mapping[str, str],
    ) -> Iterator[None]:
        """Create the folder, or check that it is of the same run; lock it while inside.

        A run that has no checkpoint yet gives its folder up to another.

        Args:
            config: of the run, JSON-serialisable, kept as `config.json`.
            free: dotted names of fields that may differ when a run goes on.
            class_names: kept as `class_names.json`.
            examples: split -> a fingerprint of its examples, kept as `examples.json`.

        Raises:
            RunError: when it cannot be written, another process is writing there, it holds other files, or a run of
                another config, whose differing fields are named, or of other data.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(
                f"cannot write to the run folder {self.path}: {error.strerror}; choose another --workdir"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another process is training in {self.path}; choose another --workdir") from None
            if not self.config.exists():
                self._check_free()
            elif self._has_checkpoint():  # Otherwise nothing is lost by starting anew.
                self._check_same(config, free)
                self._check_same_data(list(class_names), dict(examples))
            _write_json(self.config, config)
            _write_json(self.class_names, list(class_names))
            _write_json(self.examples, dict(examples))
            yield

    def read_config(self) -> dict[str, Any]:
        """The run's config.

        Raises:
            RunError: when the folder is not a run's.
        """
        config = self._read_json(self.config)
        if not isinstance(config, dict):
            raise RunError(f"{self.config} does not hold a config")
        return config

    def read_class_names(self) -> list[str]:
        """The class names, in the order of the logits.

        Raises:
            RunError: when the folder is not a run's.
        """
        names = self._read_json(self.class_names)
        if not isinstance(names, list):
            raise RunError(f"{self.class_names} does not hold a list of names")
        return names

    def read_examples(self) -> dict[str, str]:
        """Split -> the fingerprint of its examples.

        Raises:
            RunError: when the folder is not a run's.
        """
        return self._read_json(self.examples)

    def write_example_names(self, split: str, names: Iterable[str]) -> None:
        """Keep which examples a split has, a name a line, as `SPLIT_examples.txt.gz`."""
        path = self.path / f"{split}_examples.txt.gz"
        partial = path.with_suffix(".partial")
        # Without the time, which would differ between equal runs.
        partial.write_bytes(gzip.compress(b"".join(os.fsencode(f"{name}\n") for name in names), mtime=0))
        partial.replace(path)

    def _read_json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path} is not the folder of a run: it has no {path.name}") from None
        except NotADirectoryError:
            raise RunError(f"{self.path} is not the folder of a run, but a file") from None
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    def _has_checkpoint(self) -> bool:
        return self.checkpoints.is_dir() and any(entry.name.isdecimal() for entry in self.checkpoints.iterdir())

    def _check_free(self) -> None:
        """Nothing of the user's may be mixed with a run."""
        ours = {".lock", self.config.with_suffix(".partial").name}
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in ours)
        if others:
            raise RunError(
                f"{self.path} is not the folder of a run and holds other files ({others[0]}); choose another --workdir"
            )

    def _check_same_data(self, class_names: list[str], examples: dict[str, str]) -> None:
        changes = [
            f"{what} {there} then and {here} now"
            for what, there, here in [
                ("the classes were", self.read_class_names(), class_names),
                *((split, self.read_examples().get(split), here) for split, here in examples.items()),
            ]
            if there != here
        ]
        if changes:
            raise RunError(
                f"the data has changed since the run in {self.path} began: {'; '.join(changes)}. "
                f"Give it back its data, or choose another --workdir"
            )

    def _check_same(self, config: Mapping[str, Any], free: Sequence[str]) -> None:
        there, here = flat(self.read_config()), flat(json.loads(json.dumps(config)))
        differing = [
            f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
            for name in sorted(there.keys() | here.keys())
            if name not in free and there.get(name) != here.get(name)
        ]
        if differing:
            line = f"{self.path} holds a run of another config: {'; '.join(differing)}. "
            line += "Give the same values to go on with it, or choose another --workdir"
            if any(line.startswith(("train.epochs ", "train.steps ")) for line in differing):
                # The learning rate fell, and the average was taken, for the length that it began with.
                line += (
                    f"; a run is as long as it was planned: to train on from its end, add --model.weights {self.path}"
                )
            raise RunError(line)


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config as one level, by dotted names."""
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        fields |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return fields
