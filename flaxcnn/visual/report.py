"""A report as one HTML file: no network, readable on a phone, on paper and in the dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from string import Template
from typing import NamedTuple

from PIL import Image

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d0d7de; --faint: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #14181d; --line: #3d444d; --faint: #9ea7b3; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { color: var(--faint); margin: 0.5rem 0; }
.box { overflow: auto; max-height: 30rem; margin: 0.5rem 0; }
.picture { max-height: none; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.2rem 1rem 0.2rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--paper); }
th:first-child, td:first-child, th:nth-child(2):last-child, td:nth-child(2):last-child { text-align: left; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media print {
  :root { --ink: #000; --paper: #fff; --line: #bbb; --faint: #333; color-scheme: light; }
  .box { overflow: visible; max-height: none; }
  th { position: static; }
  td { overflow-wrap: anywhere; }
  img { min-width: 0 !important; max-height: 90vh; width: auto; }
  h2 { break-after: avoid; }
  tr, img { break-inside: avoid; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
$sections
</main>
</body>
</html>
""")
_NARROWEST = 640  # pixels: a picture with words is read by scrolling sooner than it shrinks below


class Table(NamedTuple):
    """Text in rows and columns; the first column names its row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A picture, and in words what is in it."""

    png: bytes
    alt: str


Part = str | Table | Picture
"""Of a section; text is a paragraph."""


def report_page(title: str, sections: Sequence[tuple[str, Sequence[Part]]]) -> str:
    """A page of HTML that refers to nothing outside itself.

    Args:
        title: of the page.
        sections: headings, and what stands below each. All text is escaped.
    """
    body = [
        f"<section>\n<h2>{escape(heading)}</h2>\n{''.join(_html(part, heading) for part in parts)}</section>"
        for heading, parts in sections
    ]
    return _PAGE.substitute(title=escape(title), sections="\n".join(body))


def _html(part: Part, heading: str) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>\n"
    inside, kind, label = (
        (_table(part), "box", heading) if isinstance(part, Table) else (_picture(part), "box picture", part.alt)
    )
    # Reached by the keyboard too, to be scrolled.
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>\n'


def _table(table: Table) -> str:
    head = _row(table.head, "th") if any(table.head) else ""
    body = "\n".join(_row(row, "td") for row in table.rows)
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _picture(picture: Picture) -> str:
    with Image.open(io.BytesIO(picture.png)) as image:
        width, height = image.size
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    size = f'width="{width}" height="{height}" style="min-width: {min(width, _NARROWEST)}px"'
    return f'<img {size} alt="{escape(picture.alt)}" src="{source}">'
