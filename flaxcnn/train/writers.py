"""Where a run's records go: a file of JSON lines, TensorBoard, Weights & Biases, the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from flaxcnn.errors import UserError, first_line

Record = Mapping[str, Any]
"""`step`, `epoch`, `split` ("train" or "eval") and the numbers measured there."""


def describe(record: Record, *, num_classes: int) -> str:
    """What an evaluation found, in a line; five guesses at no more than five classes say nothing."""
    percent = {"top1": "top-1", "top5": "top-5", "mean_average_precision": "mAP", "f1": "F1"}
    if num_classes <= 5:
        del percent["top5"]
    found = []
    for prefix, whose in (("", ""), ("average_", "average: ")):
        names = {name: title for name, title in percent.items() if prefix + name in record}
        numbers = [f"{title} {record[prefix + name]:.2%}" for name, title in names.items()]
        if names:
            found.append(whose + "  ".join([*numbers, f"loss {record[prefix + 'loss']:.4f}"]))
    return "; ".join(found)


class Writer(Protocol):
    """Takes a record at a time."""

    def write(self, record: Record) -> None:
        """Take a record."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Board(Writer, Protocol):
    """Shows a training in a browser: its numbers, and what is no number."""

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Take what the run was configured with, by name."""
        ...

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Take a picture, uint8 (h, w, 3)."""
        ...

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Take arrays of finite numbers, by name, to show how their values are distributed."""
        ...


class JsonLines:
    """Appends records to a file, a JSON object a line, each on disk before the next.

    Args:
        path: of the file.
        resume_step: records after this step are dropped: they are about to be written again.
        evaluated: whether the evaluation of that very step stays too.
    """

    def __init__(self, path: Path, *, resume_step: int, evaluated: bool = True):
        kept = [record for record in read_records(path) if record["step"] <= resume_step] if path.exists() else []
        if not evaluated:
            kept = [record for record in kept if record["split"] == "train" or record["step"] < resume_step]
        # Replaced whole, so that dying here loses nothing.
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        partial.replace(path)
        self._file = path.open("a", buffering=1)

    def write(self, record: Record) -> None:
        """Append a record."""
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines, but for a last line that a killed process left unfinished."""
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


_BINS = 64


def _scalars(record: Record) -> dict[str, float]:
    """A record's numbers as `split/name`."""
    return {f"{record['split']}/{k}": v for k, v in record.items() if k not in ("step", "epoch", "split")}


class TensorBoard:
    """Writes event files: each number as a scalar `split/name`, and what a `Board` takes.

    Args:
        folder: where event files go.
        resume_step: what earlier files hold after this step is hidden.
    """

    def __init__(self, folder: Path, *, resume_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1)
        self._resume_step = resume_step

    def write(self, record: Record) -> None:
        """Write a record's numbers."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Write the run's row of the table that compares runs."""
        from tensorboardX.summary import hparams

        # Of the three parts, the one of this run: which columns there are, TensorBoard finds over all runs.
        _, own, _ = hparams(dict(values), {})
        self._writer._get_file_writer().add_summary(own, self._resume_step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a histogram an array."""
        for name, array in arrays.items():
            values = np.ravel(array).astype(np.float64)
            counts, edges = np.histogram(values, _BINS)
            self._writer.add_histogram_raw(
                name,
                min=values.min(),
                max=values.max(),
                num=values.size,
                sum=values.sum(),
                sum_squares=values @ values,
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases what TensorBoard shows, under the same names.

    Where and whether it sends anything is the package's own business: `WANDB_MODE=offline` in the environment keeps all
    of it in the folder `wandb/`, for `wandb sync`.

    Args:
        project: name of the project.
        folder: of the run; its name is the run's name, and a run that goes on is the same one there.

    Raises:
        UserError: when the package is not installed, nobody is logged in, or the server does not answer.
    """

    def __init__(self, project: str, folder: Path):
        try:
            import wandb
        except ImportError as error:
            raise UserError("train.wandb needs Weights & Biases: pip install 'flaxcnn[wandb]'") from error
        self._wandb = wandb
        name_of_run = folder / "wandb" / "run_id"
        try:
            self._run = wandb.init(
                project=project,
                dir=folder,
                name=folder.resolve().name,
                id=name_of_run.read_text() if name_of_run.exists() else None,
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            reason = first_line(error)
            raise UserError(
                f"train.wandb: {reason} Log in with `wandb login`, or set WANDB_MODE=offline in the environment"
            ) from error
        name_of_run.parent.mkdir(exist_ok=True)
        name_of_run.write_text(self._run.id)
        # Steps of the training, not of the calls here: a run that goes on may repeat some.
        self._run.define_metric("*", step_metric="step")

    def write(self, record: Record) -> None:
        """Log a record's numbers."""
        self._run.log({"step": record["step"], **_scalars(record)})

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Keep them as the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture."""
        self._run.log({"step": step, name: self._wandb.Image(image)})

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Log a histogram an array."""
        drawn = {
            name: self._wandb.Histogram(np_histogram=np.histogram(np.asarray(array, np.float64), _BINS))
            for name, array in arrays.items()
        }
        self._run.log({"step": step, **drawn})

    def close(self) -> None:
        """Send what is left, and end the run there."""
        self._run.finish()


class Console:
    """A progress bar with the latest training numbers, and a line an evaluation.

    Where the output is no terminal there is no bar, but a line every so often.

    Args:
        total_steps: of the whole run.
        steps_per_epoch: to name the epoch.
        start_step: where this process begins.
        file: standard error by default.
        line_seconds: between two lines of training numbers where there is no bar.
        num_classes: of the data.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        *,
        start_step: int = 0,
        file: TextIO | None = None,
        line_seconds: float = 10.0,
        num_classes: int = 1000,
    ):
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs = -(-total_steps // steps_per_epoch)
        self._line_seconds = line_seconds
        self._num_classes = num_classes
        self._last_line = time.monotonic()
        self._start = (time.monotonic(), start_step)
        self._total = total_steps
        # Rich would find standard error itself, but with `file` a test can look at what is written.
        self._console = RichConsole(file=file or sys.stderr, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task("training", total=total_steps, completed=start_step, numbers="")
            self._progress.start()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def write(self, record: Record) -> None:
        """Show a record."""
        where = f"epoch {record['epoch']}/{self.epochs}"
        if record["split"] == "eval":
            found = describe(record, num_classes=self._num_classes)
            self.say(f"{where}  step {record['step']}  eval   {found}  ({record['examples']} examples)")
            return
        numbers = f"loss {record['loss']:.4f}  top-1 {record['top1']:.1%}  {record['images_per_second']:,.0f} images/s"
        if self._progress is not None:
            self._progress.update(self._task, description=where, completed=record["step"], numbers=numbers)
        elif time.monotonic() - self._last_line >= self._line_seconds:
            self._last_line = time.monotonic()
            self.say(f"{where}  step {record['step']}  train  {numbers}  {self._time_left(record['step'])} left")

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()

    def _time_left(self, step: int) -> str:
        began, first = self._start
        seconds = (time.monotonic() - began) / max(step - first, 1) * (self._total - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
