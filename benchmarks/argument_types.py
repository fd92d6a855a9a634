"""What argparse makes of the benchmarks' arguments; of a wrong one, it names the argument and what is wrong."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any


class Names(argparse.Action):
    """One name or more, with spaces or commas between."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        names = [name for value in values or () for name in value.split(",") if name]
        if not names:
            raise argparse.ArgumentError(self, "expected a name")
        setattr(namespace, self.dest, names)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def check_names(parser: argparse.ArgumentParser, argument: str, names: Iterable[str], known: Sequence[str]) -> None:
    """End the program with a line about the first name that is not known."""
    from flaxcnn.errors import did_you_mean  # not in a process whose memory is measured

    for name in names:
        if name not in known:
            parser.error(f"argument {argument}: unknown name {name!r}{did_you_mean(name, known)}")
