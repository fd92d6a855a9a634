"""Draw the guide's figures: `python -m docs.figures [NAME ...]`.

Every module beside this one that has `FIGURES`, a table of file names and functions without arguments that return a
figure, is drawn. NAMEs are files of docs/images/guide/; none are all.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module

from matplotlib.figure import Figure

from docs import figures
from docs.figures.draw import IMAGES, save


def all_figures() -> dict[str, Callable[[], Figure]]:
    """File name -> the function that draws it."""
    modules = [module.name for module in pkgutil.iter_modules(figures.__path__) if module.name != "__main__"]
    tables = [getattr(import_module(f"docs.figures.{name}"), "FIGURES", {}) for name in modules]
    return {name: draw for table in tables for name, draw in table.items()}


def main(names: list[str]) -> None:
    """Draw the named figures, or all."""
    known = all_figures()
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"no such figures: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        print(save(known[name](), name))


if __name__ == "__main__":
    main(sys.argv[1:])
