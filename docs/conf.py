"""What Sphinx builds the site from; `python -m docs.build` runs it once a language.

A page `X.md` has its Chinese beside it in `X.zh.md`. The tag `zh` chooses the Chinese ones, which then bear the same
names as the English pages do in the other build.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.tags import Tags

    tags: Tags  # given by Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.extensions import chinese, docstrings, formulas, links

in_chinese = "zh" in tags  # noqa: F821 (Sphinx gives it)

project = "flaxcnn"
version = release = importlib.metadata.version("flaxcnn")
language = "zh_CN" if in_chinese else "en"
source_suffix = {".zh.md" if in_chinese else ".md": "markdown"}
_pages = Path(__file__).parent.rglob("*.md")
exclude_patterns = [
    str(page.relative_to(Path(__file__).parent)) for page in _pages if (".zh" in page.suffixes) != in_chinese
]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
highlight_language = "none"  # of indented blocks, which are commands and what they print
pygments_style, pygments_dark_style = "default", "github-dark"

default_role = "py:obj"  # single backticks in docstrings
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "DTypeLike", "Initializer", "IntPair", "Layer")}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "flaxcnn"
html_favicon = "theme/static/favicon.svg"
html_static_path = ["theme/static"]
html_css_files = ["site.css"]
templates_path = ["theme/templates"]
locale_dirs = ["theme/locale"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {
    "source_repository": links.REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
}
html_show_copyright = False
html_copy_source = False
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Add what Sphinx has not: formulas without scripts, links out of the folder, Chinese words, Flax's docstrings."""
    for extension in (formulas, links, chinese, docstrings):
        extension.setup(app)
