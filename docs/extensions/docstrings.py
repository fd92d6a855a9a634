"""The package's docstrings as reStructuredText."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import flax.linen as nn

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HEADING = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Note|Example)s?:$")


def _keep_tables(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Indented blocks, tables of papers and commands, are shown as they stand, and so are bars."""
    shown, literal, heading = [], False, False
    for previous, line in zip(["", *lines], lines, strict=False):
        indented = line.startswith(" ")
        if line and not indented:
            literal, heading = False, bool(_HEADING.match(line))
        elif indented and not previous and not literal and not heading:
            shown += ["::", ""]
            literal = True
        shown.append(line if literal else line.replace("|", r"\|"))  # bars would be substitutions
    lines[:] = shown


def _shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Defaults by their names, and a module without the two fields that Flax adds to every one."""
    if signature:
        signature = re.sub(r"<(?:function|class) '?(?:[\w.]*\.)?(\w+)[^>]*>", r"\1", signature)
    if signature and isinstance(obj, type) and issubclass(obj, nn.Module):
        signature = re.sub(r",? ?parent=<.*?>, name=None", "", signature)
    return signature, returns


def _skip_defaults(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """A field's default, such as another function, is not a member with a docstring of its own."""
    return True if what == "class" and callable(obj) and getattr(obj, "__name__", name) != name else None


def setup(app: Sphinx) -> None:
    """Mend docstrings before the Args and Returns in them are read, signatures, and what is a member."""
    app.connect("autodoc-skip-member", _skip_defaults)
    app.connect("autodoc-process-docstring", _keep_tables, priority=400)
    app.connect("autodoc-process-signature", _shorten)
