"""The `flaxcnn` command: the scripts, for those who installed the package."""

from __future__ import annotations

import signal
import sys
import warnings
from importlib import import_module

import flaxcnn
from flaxcnn.cli.command_line import run
from flaxcnn.cli.huge_pages import start_again_with_huge_pages

COMMANDS = {
    "train": "train a model as a config file describes",
    "check": "compile a config's step, say what memory it takes, and overfit one batch",
    "find_lr": "find a learning rate, and draw the loss against it",
    "sweep": "train with several seeds",
    "evaluate": "evaluate a run's checkpoint on held-out data",
    "predict": "say what is in image files",
    "visualize": "show what a network looks at, and what is in it",
    "report": "write a run, or a comparison of runs, as one page of HTML",
    "convert": "turn one kind of weights file into another",
    "summarize": "say what a network is made of, layer by layer, and what it costs; compare networks",
    "arithmetic": "do the sums of a first course: output sizes, receptive fields, what convolutions cost",
    "show_data": "show what the network sees in training",
    "prepare_data": "look at a data set, and turn it into other forms",
}
TRAINING = ("train", "sweep")


def main() -> None:
    """`flaxcnn COMMAND ...`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in scripts/
    name, *argv = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: flaxcnn COMMAND ...\n\n" + "\n".join(f"  {c:<{width}}  {text}" for c, text in COMMANDS.items()))
        print("\nflaxcnn COMMAND --help tells more.")
        sys.exit(0)
    if name == "--version":
        print(f"flaxcnn {flaxcnn.__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        print(f"flaxcnn: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    if name in TRAINING:
        start_again_with_huge_pages()
    sys.exit(script(name, argv))


def script(name: str, argv: list[str] | None = None) -> int:
    """Run a command by name and return its exit status.

    Args:
        name: one of `COMMANDS`.
        argv: its arguments; those of the process if None.
    """
    if argv is None and name in TRAINING:
        start_again_with_huge_pages()
    # Pillow's warning of images that are refused anyway, with a line that names them.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")
    command = import_module(f"flaxcnn.cli.{name}").main
    return run(command, name, sys.argv[1:] if argv is None else argv)
