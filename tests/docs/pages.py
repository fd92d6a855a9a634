"""The pages, read: their headings, links, pictures, and what they tell a reader to run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs.extensions.links import REPOSITORY

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def chinese(self) -> Page:
        """The same page in Chinese."""
        return Page(self.path.with_name(f"{self.path.stem}.zh.md"))

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text())

    @cached_property
    def inline(self) -> list[Token]:
        """What stands within paragraphs, headings and tables."""
        return [child for token in self.tokens for child in token.children or ()]

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Code blocks: the language of a fence, or nothing, and the text."""
        return [(token.info, token.content) for token in self.tokens if token.type in ("fence", "code_block")]

    @property
    def code_spans(self) -> list[str]:
        return [" ".join(token.content.split()) for token in self.inline if token.type == "code_inline"]

    @property
    def headings(self) -> list[tuple[str, str]]:
        """Level, such as "h2", and text."""
        pairs = zip(self.tokens, self.tokens[1:], strict=False)
        return [(token.tag, text.content) for token, text in pairs if token.type == "heading_open"]

    @property
    def pictures(self) -> list[str]:
        return [str(token.attrs["src"]) for token in self.inline if token.type == "image"]

    @property
    def links(self) -> list[str]:
        return [unquote(str(token.attrs["href"])) for token in self.inline if token.type == "link_open"]

    @property
    def anchors(self) -> set[str]:
        """What GitHub and the site call the headings."""
        texts = [re.sub(r"[`*]|\]\([^)]*\)", "", text).lower() for _, text in self.headings]
        return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}

    @property
    def python(self) -> str:
        """The Python of the page, in order."""
        return "\n".join(text for language, text in self.blocks if language == "python")

    @property
    def formulas(self) -> tuple[list[str], Counter[str]]:
        """Displayed ones in their order, and those in lines, which a sentence may turn round."""
        text = re.sub(r"^```.*?^```$|^    [^\n]*$|`[^`]*`", "", self.path.read_text(), flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"\\mathrm\{and\}|\\text\{[\u4e00-\u9fff]+\}", r"\\text{}", text)  # the words are translated
        displayed = r"\$\$(.*?)\$\$"
        inline = re.findall(r"\$([^$]+)\$", re.sub(displayed, "", text, flags=re.DOTALL))
        return re.findall(displayed, text, re.DOTALL), Counter(" ".join(formula.split()) for formula in inline)

    @property
    def numbers(self) -> set[str]:
        """Numbers of two digits and more in the text, without their separators."""
        text = " ".join(token.content for token in self.inline if token.type in ("text", "code_inline"))
        return {number.replace(",", "") for number in re.findall(r"\d[\d,.]*\d", text)}

    def shell(self) -> Iterator[str]:
        """Lines of indented blocks, and code spans that are a command; continued lines joined."""
        for language, text in self.blocks:
            if not language:
                yield from text.replace("\\\n", " ").splitlines()
        yield from (span for span in self.code_spans if re.match(r"(\w+=\S+ )*(python|pytest|pip|flaxcnn) ", span))


PAGES = [
    Page(ROOT / "README.md"),
    *(Page(path) for path in sorted(DOCS.rglob("*.md")) if not path.name.endswith(".zh.md")),
]
"""The English ones; the Chinese have the same code."""


def leads_to(link: str) -> Path | None:
    """The file or folder of the repository that a link of the site leads to; None where it leads elsewhere."""
    match = re.match(rf"{REPOSITORY}/(?:blob|tree)/main/([^#]*)", link)
    return ROOT / match[1] if match else None
