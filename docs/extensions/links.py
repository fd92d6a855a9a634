"""Links as the pages write them for a reader of the files, turned into links between the pages of the site.

In the files, every link is the path of a file. On the site, one that leaves `docs/` leads to the repository, and one
from a Chinese page leads to the Chinese page, whichever of the two it names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = "https://github.com/flaxcnn/flaxcnn"
DOCS = Path(__file__).parents[1]
_TARGET = re.compile(r"(?<=\]\()(?!https?:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_the_site(text: str, page: Path) -> str:
    """A page's text with the links that it has on the site.

    Args:
        text: Markdown.
        page: its file, under `docs/`.

    Returns:
        Markdown.
    """
    chinese = page.name.endswith(".zh.md")

    def target(match: re.Match[str]) -> str:
        path, anchor = match["path"], match["anchor"] or ""
        file = (page.parent / path).resolve()
        if not file.is_relative_to(DOCS) and file.exists():
            kind = "tree" if file.is_dir() else "blob"
            return f"{REPOSITORY}/{kind}/main/{file.relative_to(DOCS.parent).as_posix()}{anchor}"
        if chinese and path.endswith(".md") and not path.endswith(".zh.md"):
            return f"{path.removesuffix('.md')}.zh.md{anchor}"
        return match[0]

    return _TARGET.sub(target, text)


def _rewrite(app: Sphinx, docname: str, content: list[str]) -> None:
    content[0] = on_the_site(content[0], Path(app.env.doc2path(docname)))


def setup(app: Sphinx) -> None:
    """Rewrite links as pages are read."""
    app.connect("source-read", _rewrite)
