"""Pictures side by side: what was made, or before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

GAP = 4
"""Pixels between pictures."""
PAPER = (255, 255, 255)
LEAST = 96
"""Pixels: a picture's side; smaller ones are enlarged as blocks."""


def square(pictures: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """Lay pictures out in rows, about as many as columns."""
    columns = math.isqrt(len(pictures) - 1) + 1
    return [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]


def draw(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Draw rows of pictures; those of a row stand side by side, enlarged where they are small."""
    shown = [[_enlarged(picture.convert("RGB")) for picture in row] for row in rows]
    width = max(sum(picture.width + GAP for picture in row) for row in shown) - GAP
    heights = [max(picture.height for picture in row) for row in shown]
    sheet = Image.new("RGB", (width, sum(heights) + GAP * (len(shown) - 1)), PAPER)
    top = 0
    for row, height in zip(shown, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP
        top += height + GAP
    return sheet


def beside(before: Image.Image, after: Image.Image) -> list[Image.Image]:
    """A row of a picture, brought to the size of what became of it, and that."""
    return [before.convert("RGB").resize(after.size, Image.Resampling.BICUBIC), after]


def _enlarged(picture: Image.Image) -> Image.Image:
    times = -(-LEAST // min(picture.size))
    size = picture.width * times, picture.height * times
    return picture.resize(size, Image.Resampling.NEAREST) if times > 1 else picture
