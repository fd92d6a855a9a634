"""The trained network of a run's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxcnn.build import build_model
from flaxcnn.cli.command_line import Parser
from flaxcnn.config import Config, ConfigError, from_dict
from flaxcnn.models import Classifier, abstract_variables
from flaxcnn.train.checkpoint import CheckpointError, Checkpoints
from flaxcnn.train.run import RunFolder

_ATTEMPTS = 20


def add_run_arguments(parser: Parser) -> None:
    """The flags that choose a run and a checkpoint of it."""
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the run's folder, such as runs/lenet")
    add_checkpoint_argument(parser)


def add_checkpoint_argument(parser: Parser) -> None:
    """The flag that chooses a checkpoint of a run."""
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="which checkpoint (default: best)"
    )
    parser.add_argument("--average", action="store_true", help="the moving average of its weights (train.ema_decay)")


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, read.

    Attributes:
        folder: where it is.
        config: it was trained with.
        class_names: in the order of the logits.
        model: without its weights.
    """

    folder: RunFolder
    config: Config
    class_names: list[str]
    model: Classifier

    @classmethod
    def read(cls, workdir: str | Path) -> TrainedRun:
        """Read a run's folder.

        Raises:
            RunError: when it is not a run's.
        """
        folder = RunFolder(workdir)
        config, class_names = from_dict(folder.read_config()), folder.read_class_names()
        return cls(folder, config, class_names, build_model(config, len(class_names)))

    def load(self, checkpoint: str, *, average: bool = False) -> tuple[int, Mapping[str, Any]]:
        """The step and the variables of a checkpoint.

        Args:
            checkpoint: "best", "latest" or a step.
            average: the moving average of the weights instead of the weights.

        Raises:
            ConfigError: when there is no such checkpoint.
            CheckpointError: when it cannot be read.
        """
        if average and self.config.train.ema_decay is None:
            raise ConfigError(f"--average: {self.folder.path} was trained without train.ema_decay")
        for _ in range(_ATTEMPTS):
            try:
                return self._load(checkpoint, average)
            except CheckpointError:
                if not self.folder.is_being_trained():
                    raise
                time.sleep(0.2)  # The training may have deleted it meanwhile.
        return self._load(checkpoint, average)

    def _load(self, checkpoint: str, average: bool) -> tuple[int, Mapping[str, Any]]:
        checkpoints = Checkpoints(self.folder.checkpoints, best_metric=self.config.train.best_metric, read_only=True)
        saved, latest = checkpoints.steps(), checkpoints.latest()
        best = checkpoints.best()
        named = {"best": latest if best is None else best, "latest": latest}
        step = named.get(checkpoint, int(checkpoint) if checkpoint.isdecimal() else None)
        if step is None or step not in saved:
            raise ConfigError(
                f"--checkpoint {checkpoint}: {self.folder.path} has no such checkpoint; "
                f"saved steps: {', '.join(map(str, saved)) or 'none yet'}"
            )
        like = abstract_variables(self.model, self.config.data.channels)
        return step, checkpoints.restore_variables(step, like, average=average)
