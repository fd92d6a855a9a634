"""What the site's own extensions make of a page's text."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("latex2mathml", reason="the extra `docs` builds the site")

from docs.extensions.chinese import join_lines
from docs.extensions.formulas import mathml

pytestmark = pytest.mark.slow  # the default tests are run without that extra


@pytest.mark.parametrize(
    ("latex", "wanted"),
    [
        ("5 = 819{,}200", "<mn>819,200</mn>"),
        (r"\log 10", '<mi>log</mi><mspace width="0.167em" /><mn>10</mn>'),
        (r"\min(x, 6)", "<mi>min</mi>"),
        ("f(1, 234)", "<mn>1</mn>"),
    ],
)
def test_formulas(latex: str, wanted: str) -> None:
    assert wanted in mathml(latex, "inline")


def test_an_unknown_command_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape(r"\nosuch")):
        mathml(r"\nosuch x", "inline")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("卷积\n感受野", "卷积感受野"),
        ("见\n[结果](x.md)", "见[结果](x.md)"),
        ("这时，\nPyTorch", "这时，PyTorch"),
        ("用 Flax\n训练", "用 Flax\n训练"),  # a space between Latin and Chinese is usual
        ("如下：\n\n    python x.py", "如下：\n\n    python x.py"),
        ("如下：\n```python", "如下：\n```python"),
        ("- 第一。\n- 第二。", "- 第一。\n- 第二。"),
        ("1. 第一。\n2. 第二。", "1. 第一。\n2. 第二。"),
        ("| 一。|\n|---|", "| 一。|\n|---|"),
    ],
)
def test_chinese_lines(text: str, wanted: str) -> None:
    assert join_lines(text) == wanted
