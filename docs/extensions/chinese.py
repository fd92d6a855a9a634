"""Chinese text has no spaces: not where a line of the file ends, and not between words.

For the search, pages and queries are cut into pairs of characters: 倒残差结构 is found by 倒残差, whatever a dictionary
holds to be a word.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from sphinx.search import SearchLanguage, languages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CHINESE = r"\u3000-\u9fff\uff00-\uffef"
_BETWEEN_CHINESE = rf"(?<=[{_CHINESE}”])\n *(?=\[?[{_CHINESE}“])"  # a link's text too
_BEHIND_A_WIDE_SIGN = (
    r"(?<=[，。；：、！？（）])\n *(?!```)(?=[^\s|#>*\-\d!])"  # whatever follows, but a block or a list
)
_BREAK = re.compile(f"{_BETWEEN_CHINESE}|{_BEHIND_A_WIDE_SIGN}")
_RUN = re.compile(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+")


class PairsOfCharacters(SearchLanguage):
    """Words of Latin letters and digits as they are, runs of Chinese characters as their overlapping pairs."""

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = r"""
var splitQuery = (query) =>
  (query.match(/[\u4e00-\u9fff]+|[^\P{L}\u4e00-\u9fff]+|[\p{N}_]+/gu) || []).flatMap((run) =>
    /[\u4e00-\u9fff]{2}/.test(run) ? [...run].slice(1).map((character, i) => run[i] + character) : [run]
  );
"""

    def split(self, input: str) -> list[str]:
        """The words of a text."""
        words = []
        for run in _RUN.findall(input):
            chinese = len(run) > 1 and "\u4e00" <= run[0] <= "\u9fff"
            words += [first + second for first, second in pairwise(run)] if chinese else [run.lower()]
        return words


def join_lines(text: str) -> str:
    """Chinese Markdown without the line ends that would become spaces."""
    return _BREAK.sub("", text)


def _join_lines(app: Sphinx, docname: str, content: list[str]) -> None:
    content[0] = join_lines(content[0])


def setup(app: Sphinx) -> None:
    """Join lines as pages are read, and take the place of Sphinx's own cutter, which needs a dictionary."""
    app.connect("source-read", _join_lines)
    languages["zh"] = PairsOfCharacters
