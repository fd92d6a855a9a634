"""A picture with what a network says of it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_SMALLEST = 256
_INK, _PAPER, _BAR = (30, 30, 30), (255, 255, 255), (214, 226, 240)


def annotate(image: Image.Image, classes: Sequence[tuple[str, float]]) -> Image.Image:
    """Put a strip of labels below a picture, each on a bar as long as its probability.

    Args:
        image: mode RGB; a small one is enlarged, so that there is room for words.
        classes: label and probability (0 to 1), from top to bottom.

    Returns:
        A new picture, taller by the strip.
    """
    factor = -(-_SMALLEST // min(image.size)) if min(image.size) < _SMALLEST else 1
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = max(14, image.width // 28)
    font, line = ImageFont.load_default(size), round(size * 1.5)
    result = Image.new("RGB", (image.width, image.height + line * len(classes)), _PAPER)
    result.paste(image)
    draw = ImageDraw.Draw(result)
    for i, (label, probability) in enumerate(classes):
        top, margin = image.height + i * line, size // 3
        draw.rectangle((0, top, round(image.width * probability), top + line - 1), _BAR)
        draw.text((margin, top + line / 2), label, _INK, font, anchor="lm")
        draw.text((image.width - margin, top + line / 2), f"{probability:.1%}", _INK, font, anchor="rm")
    return result
