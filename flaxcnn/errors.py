"""Errors that are the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One clear line that names the field, file or value and what to do.

    The command line prints it without a traceback and exits with `exit_status`.
    """

    exit_status = 2

    @property
    def line(self) -> str:
        """What the command line prints."""
        return " ".join(str(self).split())


class ConfigError(UserError):
    """A field, or a config file, that is not right."""


def first_line(error: BaseException) -> str:
    """Of an error's message; what kind of error it is where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: close matches, else all there are."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=4, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(known) or 'none'}"
