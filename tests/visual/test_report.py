"""The report's page: everything escaped, every picture with its words."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from flaxcnn.visual.report import Picture, Table, report_page

HOSTILE = """<script>alert("1")</script> & 'more' $title"""


class Reader(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def test_all_text_is_escaped() -> None:
    picture = Picture(png((20, 10)), HOSTILE)
    table = Table((HOSTILE, "n"), [(HOSTILE, "1")])
    reader = Reader(report_page(HOSTILE, [(HOSTILE, [HOSTILE, table, picture])]))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert reader.texts.count(HOSTILE) == 6  # title, heading, heading of the section, paragraph, two cells
    ((image, alt),) = [(a["src"], a["alt"]) for tag, a in reader.tags if tag == "img"]
    assert alt == HOSTILE
    kind, _, content = (image or "").partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == picture.png


def test_a_small_picture_is_not_stretched() -> None:
    page = report_page("a", [("b", [Picture(png((20, 10)), "small"), Picture(png((900, 10)), "wide")])])
    assert re.findall(r'width="(\d+)" height="10" style="min-width: (\d+)px"', page) == [("20", "20"), ("900", "640")]
