"""The sheet: clean photo, amplified difference and forgery side by side, with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from iguana.errors import InternalError
from iguana.result import AttackResult, Classification

PANEL = 384
"""The side of a panel in pixels, at least."""
MARGIN = 32
GAP = 24
LINE = 28
CAPTION = 96
PHOTO_SIDE = 96
"""Pictures with smaller sides are enlarged as blocks, to show their pixels; larger ones smoothly."""
PAPER, INK, FAINT, RULE = (255, 255, 255), (24, 24, 27), (95, 95, 105), (212, 212, 216)
GREY, HALF_SCALE = 128, 127

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Panel:
    """One picture and its caption: a heading, and lines below it."""

    pixels: NDArray[np.uint8]
    heading: str
    lines: tuple[str, ...]
    blocks: bool = False


def draw_sheet(results: Sequence[AttackResult]) -> Image.Image:
    """One row a result. Each needs its clean picture (`return_clean`) and the 8-bit grid."""
    rows = [_enlarged(_panels(result)) for result in results]
    width = 2 * MARGIN + max(sum(image.width for image, _ in row) + GAP * (len(row) - 1) for row in rows)
    heights = [max(image.height for image, _ in row) + CAPTION for row in rows]
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    heading_font, font = ImageFont.load_default(21), ImageFont.load_default(17)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for image, panel in row:
            sheet.paste(image, (left, top))
            draw.rectangle((left - 1, top - 1, left + image.width, top + image.height), outline=RULE)
            below = top + image.height + 12
            draw.text(
                (left, below), _fitted(draw, panel.heading, heading_font, image.width), INK, heading_font
            )
            for i, line in enumerate(panel.lines, 1):
                text = _fitted(draw, line, font, image.width)
                draw.text((left, below + LINE * i), text, FAINT, font)
            left += image.width + GAP
        top += height + GAP
    return sheet


def amplification(difference: NDArray[np.int16]) -> float:
    """The factor that brings the largest change near half of the scale: whole, or 0.5 above that."""
    largest = int(np.abs(difference).max(initial=0))
    return max(HALF_SCALE // max(largest, 1), 0.5) if largest else 1


def _panels(result: AttackResult) -> list[Panel]:
    if result.clean is None or result.picture is None:
        raise InternalError(
            f"sheet: want the clean and the forged picture of sample {result.sample}, got {result.outcome}"
        )
    clean, forged = np.asarray(result.clean.pil()), np.asarray(result.picture.pil())
    difference = forged.astype(np.int16) - clean.astype(np.int16)
    factor = amplification(difference)
    shown = (GREY + factor * difference).astype(np.uint8)
    norms = result.norms
    return [
        Panel(clean, _top(result.before), ("clean",)),
        Panel(
            shown,
            f"difference x {factor:g}" if difference.any() else "no difference",
            (
                f"Linf {norms.linf * 255:.3g}/255   L2 {norms.l2:.3g}",
                f"grey is no change; {norms.l0} values changed",
            ),
            blocks=True,
        ),
        Panel(forged, _top(result.after), (f"{result.outcome}, margin {result.margin:+.2f} logits",)),
    ]


def _enlarged(panels: list[Panel]) -> list[tuple[Image.Image, Panel]]:
    return [(_enlarge(panel), panel) for panel in panels]


def _enlarge(panel: Panel) -> Image.Image:
    image = Image.fromarray(panel.pixels).convert("RGB")
    times = -(-PANEL // min(image.size))
    blocks = panel.blocks or min(image.size) < PHOTO_SIDE
    resample = Image.Resampling.NEAREST if blocks else Image.Resampling.LANCZOS
    return image.resize((image.width * times, image.height * times), resample) if times > 1 else image


def _top(classification: Classification) -> str:
    best = classification.top[0]
    return f"{best.name.split(',')[0]}  {best.probability:.1%}"


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """`text`, cut with dots where it is wider than its panel."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text.rstrip() + "..."
