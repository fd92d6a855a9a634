"""The built site in a browser: every page of both languages, without a server and without a network."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from docs.extensions.links import REPOSITORY
from tests.browser import CHROMIUM, Browser
from tests.docs.pages import DOCS, ROOT, leads_to

pytestmark = pytest.mark.slow
PHONE, DESKTOP = 390, 1440

LOOK = """(() => {
  const article = document.querySelector("article").cloneNode(true);
  article.querySelectorAll("pre, code, math").forEach((element) => element.remove());
  return {
    language: document.documentElement.lang,
    broken: [...document.images].filter((image) => !image.complete || !image.naturalWidth).map((image) => image.src),
    formulas: [...document.querySelectorAll("math")].map((element) => element.getBoundingClientRect().width),
    links: [...document.querySelectorAll("a[href]")].map((element) => element.href),
    text: article.textContent,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="the site is built by the docs extra")
    folder = tmp_path_factory.mktemp("built") / "site"
    built = subprocess.run([sys.executable, "-m", "docs.build", folder], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """Its address. It outlives each page's requests, which otherwise fail when the next page is looked at."""
    handler = functools.partial(QuietHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_page(site: Path, browser: Browser) -> None:
    sources = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sources
    for source in sources:
        chinese = source.endswith(".zh.md")
        text = (DOCS / source).read_text()
        page = site / ("zh/" if chinese else "") / f"{source.removesuffix('.zh.md').removesuffix('.md')}.html"
        for width in (PHONE, DESKTOP):
            browser.set_screen(width)
            browser.open(page.as_uri())
            seen = browser.evaluate(LOOK)
            assert not browser.problems, (source, browser.problems)
            assert all(urlsplit(request).scheme in ("file", "data") for request in browser.requests), source
            assert seen["language"] == ("zh-CN" if chinese else "en")
            assert not seen["broken"], source
            assert all(seen["formulas"]) and (seen["formulas"] or "$" not in text), source
            assert "$" not in seen["text"] and "\\" not in seen["text"], source
            assert seen["overflow"] <= 0, (source, width, seen["overflow"])
        missing = [link for link in seen["links"] if not leads(link)]
        assert not missing, (source, missing)


def leads(link: str) -> bool:
    """Whether a link within the site leads to a page, and to a place on it; one to the repository, to what is there."""
    if link.startswith(REPOSITORY + "/"):
        file = leads_to(unquote(link))
        return file is not None and file.exists()
    parts = urlsplit(link)
    if parts.scheme != "file":
        return parts.scheme == "https"
    file = Path(unquote(parts.path))
    return file.is_file() and (not parts.fragment or f'id="{unquote(parts.fragment)}"' in content(file))


@functools.cache
def content(file: Path) -> str:
    return file.read_text()


@pytest.mark.parametrize(
    ("folder", "words", "found"),
    [
        ("", "residual", "guide/resnet.html"),
        ("zh/", "倒残差", "guide/mobilenet.html"),
        ("zh/", "组卷积", "guide/resnext.html"),
    ],
)
def test_search(server: str, browser: Browser, folder: str, words: str, found: str) -> None:
    browser.open(f"{server}/{folder}search.html?q={quote(words)}")
    links = browser.evaluate(RESULTS)
    assert not browser.problems, browser.problems
    assert any(found in link for link in links), links


RESULTS = """new Promise((resolve) => {
  const wait = () => {
    const links = [...document.querySelectorAll("#search-results li a")].map((element) => element.href);
    const status = document.querySelector("#search-results .search-summary");
    status && /[0-9]/.test(status.textContent) ? resolve(links) : setTimeout(wait, 50);  // so many pages are found
  };
  wait();
})"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass
