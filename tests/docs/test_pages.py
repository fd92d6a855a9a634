"""The pages: both languages of each, links that lead somewhere, flags that exist."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from docs.extensions.links import REPOSITORY, on_the_site
from flaxcnn.cli.command_line import read_config
from flaxcnn.config import Config
from tests.docs.pages import DOCS, PAGES, ROOT, Page, leads_to

TRANSLATED = [page for page in PAGES if page.path.is_relative_to(DOCS)]
ALL = [*PAGES, *(page.chinese for page in TRANSLATED)]


def test_every_chinese_page_has_an_english_one() -> None:
    assert set(DOCS.rglob("*.zh.md")) == {page.chinese.path for page in TRANSLATED}


def test_the_order_of_the_pages_has_them_all() -> None:
    for index, suffix in ((Page(DOCS / "index.md"), ".md"), (Page(DOCS / "index.zh.md"), ".zh.md")):
        trees = [text for language, text in index.blocks if language == "{toctree}"]
        named = [line for text in trees for line in text.splitlines() if line and not line.startswith(":")]
        pages = {page.path.relative_to(DOCS).as_posix().removesuffix(".md") for page in TRANSLATED} - {"index"}
        assert Counter(named) == Counter(pages), index
        assert all((DOCS / f"{name}{suffix}").is_file() for name in named)


@pytest.mark.parametrize("page", TRANSLATED, ids=str)
def test_both_languages_say_the_same(page: Page) -> None:
    chinese = page.chinese
    captions = re.compile(r"^:caption:.*\n", re.MULTILINE)  # of the parts of the book, which are translated
    assert [(language, captions.sub("", text)) for language, text in chinese.blocks] == [
        (language, captions.sub("", text)) for language, text in page.blocks
    ]
    assert [level for level, _ in chinese.headings] == [level for level, _ in page.headings]
    assert chinese.pictures == page.pictures
    assert Counter(chinese.code_spans) == Counter(page.code_spans)
    assert chinese.numbers == page.numbers
    assert chinese.formulas == page.formulas
    assert re.search(r"[\u4e00-\u9fff]", chinese.path.read_text())
    targets = [re.sub(r"\.zh\.md|#.*", lambda match: ".md" * (match[0] == ".zh.md"), link) for link in chinese.links]
    assert Counter(targets) == Counter(link.partition("#")[0] for link in page.links)


@pytest.mark.parametrize("page", ALL, ids=str)
def test_links(page: Page) -> None:
    broken = [target for target in [*page.links, *page.pictures] if "://" not in target and not leads(page, target)]
    assert not broken, f"{page} links to what is not there: {', '.join(broken)}"


def leads(page: Page, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.path.parent / path).resolve() if path else page.path
    # A Chinese page leads to Chinese ones.
    if page.path.name.endswith(".zh.md") and file.is_relative_to(DOCS) and file.suffix == ".md":
        other = file if file.name.endswith(".zh.md") else None
        return other is not None and other.is_file() and (not anchor or anchor in Page(other).anchors)
    return file.exists() and (not anchor or anchor in Page(file).anchors)


@pytest.mark.parametrize("page", [page for page in ALL if page.path.is_relative_to(DOCS)], ids=str)
def test_links_of_the_site_lead_into_the_repository(page: Page) -> None:
    """Those out of docs/, to the files that the page means."""
    for link in rewritten(page):
        file = leads_to(link)
        if file is None:
            assert (page.path.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS) or "://" in link, link
        else:
            assert file.is_dir() if link.startswith(f"{REPOSITORY}/tree/") else file.is_file(), f"{page}: {link}"


def rewritten(page: Page) -> list[str]:
    """The links that a page has on the site."""
    tokens = MarkdownIt("commonmark").enable("table").parse(on_the_site(page.path.read_text(), page.path))
    inline = [child for token in tokens for child in token.children or ()]
    return [unquote(str(token.attrs["href"])) for token in inline if token.type == "link_open"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_flags_exist(page: Page) -> None:
    sections = {field.name: field.default_factory for field in dataclasses.fields(Config)}
    for section, name in re.findall(r"--(\w+)\.(\w+)", page.path.read_text()):
        if section.isupper() or name.isupper():  # stands for any
            continue
        assert section in sections, f"{page}: --{section}.{name}"
        known = {field.name for field in dataclasses.fields(sections[section]())}  # type: ignore[operator]
        assert name in known, f"{page}: --{section}.{name}"


# What some flags are only allowed with.
FILES = "--data.name image_folder --data.path FOLDER"
BESIDE = {
    "--data.cache": FILES,
    "--data.decoder": f"{FILES} --data.augment random_resized_crop",
    "--data.download": "--data.name tfds --data.builder mnist",
    "--data.on_error": FILES,
    "--train.best_metric": "--train.ema_decay 0.9",
    "--train.sync_batch_norm": "--train.parallel pmap",
}
VALUES = [
    (page, span)
    for page in PAGES
    for span in dict.fromkeys(page.code_spans)
    if re.match(r"--\w+\.\w+ ", span) and not re.search(r" ([A-Z]+|k)\b", span)  # which stand for any
]


@pytest.mark.parametrize(("page", "span"), VALUES, ids=[f"{page} {span}" for page, span in VALUES])
def test_values_can_be_read(page: Page, span: str) -> None:
    """Of flags without a command, which no test runs."""
    words = ["--config", str(ROOT / "configs" / "lenet.py"), *shlex.split(span)]
    words += shlex.split(BESIDE.get(span.partition(" ")[0], ""))
    read_config(words, prog="train", description="")


def test_extras_exist() -> None:
    """What the pages install is what the package offers."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in [*PAGES, Page(Path(ROOT / "CONTRIBUTING.md"))]:
        for names in re.findall(r"pip install (?:-e )?'(?:\.|flaxcnn)\[([\w,]+)\]'", page.path.read_text()):
            assert set(names.split(",")) <= extras.keys(), page
