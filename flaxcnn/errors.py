"""Errors that are the user's to mend."""

from __future__ import annotations


class UserError(ValueError):
    """One clear line that names the field, file or value and what to do.

    The command line prints it without a traceback and exits with `exit_status`.
    """

    exit_status = 2
