"""Where a run's records go: a file of JSON lines, TensorBoard, the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

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


class TensorBoard:
    """Writes each number as a scalar `split/name`.

    Args:
        folder: where event files go.
        resume_step: what earlier files hold after this step is hidden.
    """

    def __init__(self, folder: Path, *, resume_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def write(self, record: Record) -> None:
        """Write a record's numbers."""
        for name, value in record.items():
            if name not in ("step", "epoch", "split"):
                self._writer.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


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
