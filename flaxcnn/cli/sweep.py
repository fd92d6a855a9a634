"""Train with several seeds, and say what their mean and deviation are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxcnn.cli import train
from flaxcnn.cli.command_line import Parser, read_config
from flaxcnn.config import ConfigError
from flaxcnn.train.run import RunFolder
from flaxcnn.train.writers import read_records

DESCRIPTION = """Train with several seeds, each in a folder of its own under the run's; the same command goes on.

--seeds SEED ... (0 1 2) are the seeds."""
_NOT_METRICS = ("step", "epoch", "split", "examples")


def main(argv: Sequence[str]) -> int:
    """`sweep --config FILE [--seeds SEED ...] [--section.field VALUE ...]`."""
    own = Parser("sweep", add_help=False)
    own.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    known, words = own.parse_known_args(argv)
    if len(set(known.seeds)) < max(len(known.seeds), 2):
        raise ConfigError("--seeds must be two or more, all different")
    config, name = read_config(words, prog="sweep", description=DESCRIPTION)
    if config.distributed.coordinator is not None:
        raise ConfigError("distributed.coordinator: sweep runs in one process")
    if config.train.max_minutes is not None:
        raise ConfigError("train.max_minutes: sweep needs runs that come to their end")
    folder = Path(config.workdir or Path("runs") / name)
    last = []
    for seed in known.seeds:
        own_folder = folder / f"seed_{seed}"
        status = train.main([*words, "--train.seed", str(seed), "--workdir", str(own_folder)])
        if status:
            return status
        records = read_records(RunFolder(own_folder).metrics)
        last.append([record for record in records if record["split"] == "eval"][-1])
    print(f"{len(last)} seeds: mean +- standard deviation")
    for line in summary(last):
        print(line)
    return 0


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each metric of two or more runs' evaluations: its mean and standard deviation."""
    lines = []
    for metric in (name for name in records[0] if name not in _NOT_METRICS):
        values = [record[metric] for record in records]
        lines.append(f"{metric:30}  {statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}")
    return lines
