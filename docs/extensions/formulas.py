"""Formulas as MathML, which browsers draw by themselves: no script, no font and no network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from latex2mathml.converter import convert

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator


def mathml(latex: str, display: str) -> str:
    """MathML of a formula.

    Args:
        latex: the formula without its dollars.
        display: "inline" or "block".

    Returns:
        A `<math>` element.

    Raises:
        ValueError: where it has a command that is not known, which would stand there as text.
    """
    markup = convert(latex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", markup)
    if unknown:
        raise ValueError(f"formula with an unknown command {unknown[0]}: {latex}")
    comma = r"<mrow><mo>&#x0002C;</mo></mrow>"
    markup = re.sub(rf"(<mn>\d+)</mn>{comma}<mn>(?=\d{{3}}</mn>)", r"\1,", markup)  # 819{,}200 is one number
    markup = re.sub(r"<mo>(min|max)</mo>", r"<mi>\1</mi>", markup)  # functions, not operators with space on both sides
    return re.sub(r"(<mi>(?:log|ln)</mi>)(?=<m[ni]>)", r'\1<mspace width="0.167em" />', markup)


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Offer `html_math_renderer = "mathml"`."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
