"""A large picture in tiles: what each pass reads of it, and what is kept of what comes out.

Tiles at the picture's border lie flush with it, moved inwards, and none is padded: so a network that pads its
convolutions with zeros does so where it would untiled, at the picture's border. Elsewhere a tile goes `overlap`
pixels beyond what is kept of it. Where the overlap is the network's radius (as far as a pixel's picture sees), tiles
show what the whole picture would, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Along one axis: a tile reads the pixels [start, stop), of which [first, last) are kept."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels of the picture that goes in. What it reads may go beyond the picture: see `of`."""

    rows: Span
    columns: Span

    def of(self, picture: Tensor) -> Tensor:
        """Return what the tile reads, [..., h, w], of a picture [..., H, W]; beyond its border, its reflection."""
        found = picture
        for axis, span in ((-2, self.rows), (-1, self.columns)):
            size = picture.shape[axis]
            if span.stop <= size:
                found = found.narrow(axis, span.start, span.stop - span.start)
            else:
                index = torch.arange(span.start, span.stop, device=picture.device)
                found = found.index_select(axis, _reflected(index, size))
        return found

    def keep(self, piece: Tensor, picture: Tensor, scale: int) -> None:
        """Copy what is kept of a piece [..., scale h, scale w] to its place in a picture [..., scale H, scale W]."""
        for axis, span in ((-2, self.rows), (-1, self.columns)):
            kept = (span.last - span.first) * scale
            piece = piece.narrow(axis, (span.first - span.start) * scale, kept)
            picture = picture.narrow(axis, span.first * scale, kept)
        picture.copy_(piece)


def cut(height: int, width: int, side: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Cut a picture of height x width pixels into tiles, row by row; every pixel is kept of exactly one.

    A tile is `side` pixels long along an axis of the picture that is longer, and else as long as the picture. Where
    `multiple` does not divide the picture, tiles at its lower and right border read up to multiple - 1 pixels of its
    reflection. Tiles begin at multiples of `multiple`. With overlap 0 the picture stays whole: one tile. Raises
    ValueError where the multiple does not divide the side or the overlap leaves less than it of a tile.
    """
    if side % multiple:
        raise ValueError(f"side: want a multiple of {multiple}, got {side}")
    if side - 2 * overlap < multiple:
        raise ValueError(f"overlap: want at most {(side - multiple) // 2} of a side of {side}, got {overlap}")
    columns = _spans(width, side, overlap, multiple)
    return [Tile(row, column) for row in _spans(height, side, overlap, multiple) for column in columns]


def assemble(tiles: Sequence[Tile], pieces: Iterable[Tensor], height: int, width: int, scale: int) -> Tensor:
    """Put pieces [..., scale h, scale w], one for each tile in turn, together: [..., scale height, scale width].

    Pieces are taken one at a time; the picture has the dtype and the device of the first.
    """
    picture = None
    for tile, piece in zip(tiles, pieces, strict=True):
        if picture is None:
            picture = piece.new_empty(*piece.shape[:-2], scale * height, scale * width)
        tile.keep(piece, picture, scale)
    if picture is None:
        raise ValueError("tiles: want one or more, got none")
    return picture


def _spans(size: int, side: int, overlap: int, multiple: int) -> list[Span]:
    """Spread tiles evenly along an axis; what two of them read is parted in its middle."""
    whole = -(-size // multiple)  # all in units of `multiple`
    if overlap == 0 or size <= side:
        return [Span(0, whole * multiple, 0, size)]
    room = whole - side // multiple  # from the first tile's start to the last's
    count = -(-room // ((side - 2 * overlap) // multiple)) + 1
    starts = [k * room // (count - 1) * multiple for k in range(count)]
    parts = [(later + earlier + side) // 2 for earlier, later in pairwise(starts)]
    return [
        Span(start, start + side, first, last)
        for start, first, last in zip(starts, [0, *parts], [*parts, size], strict=True)
    ]


def _reflected(index: Tensor, size: int) -> Tensor:
    """Mirror positions beyond [0, size) at its first and last pixel, as often as it takes."""
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.where(index < size, index, period - index)
