"""The command line over a Config, and how a command ends."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import io
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import tyro

from flaxcnn.config import Config, ConfigError, check_types, validate
from flaxcnn.errors import UserError, did_you_mean


def run(command: Callable[[Sequence[str]], int], prog: str, argv: Sequence[str]) -> int:
    """Run a command; a mistake of the user's ends in one line on standard error.

    Args:
        command: takes the arguments, returns the exit status.
        prog: name for the line.
        argv: `--debug` among them shows the traceback too.

    Returns:
        The exit status.
    """
    try:
        return command([word for word in argv if word != "--debug"])
    except (UserError, OSError, KeyboardInterrupt) as error:
        return tell(error, prog, debug="--debug" in argv)


def tell(error: BaseException, prog: str, *, debug: bool) -> int:
    """Say what ended a command: a mistake of the user's in one line on standard error, anything else as Python does.

    Args:
        error: that ended it.
        prog: name for the line.
        debug: show the traceback too.

    Returns:
        The exit status.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):  # whoever read the output had enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if not isinstance(error, (UserError, OSError)):
        traceback.print_exception(error)
        return 1
    if debug:
        traceback.print_exception(error)
    line = error.line if isinstance(error, UserError) else " ".join(str(error).split())
    print(f"{prog}: {line}", file=sys.stderr)
    return error.exit_status if isinstance(error, UserError) else 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are the user's to mend, in one line."""

    def __init__(self, prog: str, description: str = "", *, add_help: bool = True):
        super().__init__(
            prog,
            description=description,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        _, _, unknown = message.partition("unrecognized arguments: ")
        close = difflib.get_close_matches(unknown.split(" ")[0], self._option_string_actions, n=1)
        raise ConfigError(message + (f"; did you mean {close[0]}?" if unknown and close else ""))


def read_config(argv: Sequence[str], *, prog: str, description: str) -> tuple[Config, str]:
    """The config that `--config FILE` and the overrides after it describe.

    Args:
        argv: the arguments.
        prog: for the help text.
        description: for the help text.

    Returns:
        The config, every field in its range, and the name of its file.

    Raises:
        ConfigError: names the file, flag or value that is not right.
        SystemExit: after printing the help.
    """
    own = Parser(prog, add_help=False)
    own.add_argument("--config", metavar="FILE")
    known, overrides = own.parse_known_args(argv)
    wants_help = any(word in ("-h", "--help") for word in overrides)
    if known.config is None and not wants_help:
        raise ConfigError(f"--config FILE is needed: {_a_config()}")
    default = load_config(Path(known.config)) if known.config else Config()
    if wants_help:
        description += "\n\n--config FILE names the Python file the defaults below come from; --debug shows tracebacks."
    return override(default, overrides, prog=prog, description=description), Path(known.config or "").stem


def load_config(path: Path) -> Config:
    """Run a config file and return what its `get_config()` returns.

    Raises:
        ConfigError: when it is missing, broken, or has no such function.
    """
    if not path.is_file():
        files = {file.name: file for folder in (Path("configs"), path.parent) for file in folder.glob("*.py")}
        close = difflib.get_close_matches(path.name, files, n=1)
        hint = f"did you mean {files[close[0]]}?" if close else f"name {_a_config()}"
        raise ConfigError(f"there is no config file {path}; {hint}")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except KeyError as error:
        if error.args != ("get_config",):
            raise ConfigError(f"config file {path}: {_where(error, path)}") from error
        raise ConfigError(f"config file {path} has no function get_config()") from error
    except Exception as error:  # whatever the file does wrong, its line is what the user needs
        raise ConfigError(f"config file {path}: {_where(error, path)}") from error
    if not isinstance(config, Config):
        raise ConfigError(f"config file {path}: get_config() must return a flaxcnn.config.Config, not {type(config)}")
    check_types(config)
    return config


def _a_config() -> str:
    """What to name; `configs/` is there in a clone, but not where the package alone is installed."""
    example = Path("configs", "lenet.py")
    return (
        f"one, such as {example}"
        if example.is_file()
        else "a Python file with a `get_config()` that returns a `flaxcnn.config.Config`"
    )


def _where(error: BaseException, path: Path) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {message}"


def override(default: Config, words: Sequence[str], *, prog: str, description: str = "") -> Config:
    """A config with fields overridden by flags.

    Args:
        default: what is not overridden.
        words: `--section.field VALUE ...`, or `--help`.
        prog: for the help text.
        description: for the help text.

    Returns:
        The config, every field in its range.

    Raises:
        ConfigError: names the flag or value that is not right.
        SystemExit: after printing the help.
    """
    parse = partial(
        tyro.cli,
        Config,
        default=default,
        prog=prog,
        description=description,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )
    if any(word in ("-h", "--help") for word in words):
        return parse(args=["--help"])
    _check_flags(words)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), _wide_terminal():
            return validate(parse(args=list(words)))
    except SystemExit as error:
        raise ConfigError(_first_message(output.getvalue())) from error


def run_action(actions: Mapping[str, Callable[..., int]], argv: Sequence[str], *, prog: str, description: str) -> int:
    """Run one of several functions, whose parameters are its flags.

    Args:
        actions: name -> function; its docstring is the help.
        argv: the action's name and its flags, or `--help`.
        prog: for the help text.
        description: for the help text.

    Returns:
        What the function returns: the exit status.

    Raises:
        ConfigError: names the action, flag or value that is not right.
        SystemExit: after printing the help.
    """
    if not argv:
        raise ConfigError(f"say what to do: {' or '.join(actions)}")
    if not argv[0].startswith("-") and argv[0] not in actions:
        raise ConfigError(f"there is no action {argv[0]!r}{did_you_mean(argv[0], actions)}")

    def parse() -> Callable[[], int]:
        return tyro.extras.subcommand_cli_from_dict(
            {name: _deferred(action) for name, action in actions.items()},
            args=list(argv),
            prog=prog,
            description=description,
            use_underscores=True,
        )

    if any(word in ("-h", "--help") for word in argv):
        return parse()()
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), _wide_terminal():
            call = parse()
    except SystemExit as error:
        raise ConfigError(_first_message(output.getvalue())) from error
    return call()


def _deferred(function: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The same parameters, but to be called once they are read: its errors are its own."""

    @functools.wraps(function)
    def bind(*args: object, **kwargs: object) -> Callable[[], int]:
        return lambda: function(*args, **kwargs)

    return bind


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """Make room for tyro's messages, which it draws in a box, on one line."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


_CALLED_ELSEWHERE = {
    "--model": "--model.name",
    "--data": "--data.path",
    "--optimizer": "--optimizer.name",
    "--lr": "--optimizer.learning_rate",
    "--pretrained": "--model.weights published",
    "--dropout": "--model.options dropout 0.1",
    "--freeze": "--optimizer.trainable",
}
"""Flags of other commands and libraries, and what they are here."""


def _check_flags(words: Sequence[str]) -> None:
    known = _flags(Config)
    for word in words:
        flag = word.split("=")[0]
        if flag.startswith("--") and flag.replace("-", "_") not in [k.replace("-", "_") for k in known]:
            close = difflib.get_close_matches(flag, known, n=3, cutoff=0.5)
            by_leaf = [k for k in known if k.rpartition(".")[2] == flag.removeprefix("--")]
            hint = _CALLED_ELSEWHERE.get(flag) or ", ".join(by_leaf or close)
            raise ConfigError(f"unknown flag {flag}; " + (f"did you mean {hint}?" if hint else "see --help"))


def _flags(section: type, prefix: str = "--") -> list[str]:
    flags = []
    for field in dataclasses.fields(section):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            flags += _flags(type(default), f"{prefix}{field.name}.")
        else:
            flags.append(prefix + field.name)
    return flags


def _first_message(box: str) -> str:
    """The first line inside the box that tyro draws around an error."""
    lines = [line.strip(" │|") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("╭", "─", "+"))] or [box]
    # What is missing stands in the line below.
    message = " ".join(lines[:2]) if lines[0].startswith("Missing") else lines[0]
    message = re.sub(r"invalid literal for int\(\) with base 10: ", "must be a whole number, not ", message)
    message = re.sub(r"could not convert string to float: ", "must be a number, not ", message)
    return message.removeprefix("Error parsing ")
