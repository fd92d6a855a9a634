"""Make a folder of images ready for training."""

from __future__ import annotations

from collections.abc import Sequence

from flaxcnn.cli.command_line import Parser
from flaxcnn.config import ConfigError
from flaxcnn.data.split import split_folder

DESCRIPTION = """Make a folder of images ready for training.

split: copy a folder with a folder a class to a new one with train/ and val/, a folder a class in each. Which images
are held out depends on their names and the seed alone, so that it is the same on every machine."""


def main(argv: Sequence[str]) -> int:
    """`prepare_data split FOLDER OUT [--val-fraction X] [--seed N]`."""
    parser = Parser("prepare_data", DESCRIPTION)
    parser.add_argument("action", choices=["split"], help="what to do")
    parser.add_argument("source", metavar="FOLDER", help="with a folder a class; it is left as it is")
    parser.add_argument("target", metavar="OUT", help="a new folder")
    parser.add_argument(
        "--val-fraction", type=float, default=0.1, metavar="X", help="share of each class held out (default: 0.1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which share it is (default: 0)")
    known = parser.parse_args(argv)
    if not 0 < known.val_fraction < 1:
        raise ConfigError(f"--val-fraction must be above 0 and below 1, not {known.val_fraction}")
    counts = split_folder(known.source, known.target, val_fraction=known.val_fraction, seed=known.seed)
    width = max(map(len, counts["train"]))
    print(f"{'':<{width}}  train    val")
    for name, number in counts["train"].items():
        print(f"{name:<{width}}  {number:5}  {counts['val'][name]:5}")
    print(f"in {known.target}: add --data.path {known.target}")
    return 0
