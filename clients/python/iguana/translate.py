"""Translation: the arguments as messages, and the answers as frozen values. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Required, TypedDict

import numpy as np
from numpy.typing import NDArray

from iguana import choice, parameter
from iguana.errors import InternalError
from iguana.image import ImagesLike, Picture, from_image, to_images
from iguana.request import determinism
from iguana.response import manifest_of
from iguana.result import Manifest
from iguana.v1 import image_pb2, translate_pb2

Styles = str | Sequence[str] | Mapping[str, float]
"""A style, several in equal parts, or weights by name."""


class TranslateItem(TypedDict, total=False):
    """The arguments of `Client.translate`, as one item of `Client.stream_translate`."""

    images: Required[ImagesLike]
    model: Required[str]
    styles: Styles
    encoding: str
    strict: bool


@dataclass(frozen=True)
class Translated:
    """A picture that was turned into another, of so many tiles."""

    sample: int
    picture: Picture
    tiles: int


class Translations(list[Translated]):
    """Pictures that were turned into others, in order, with the `manifest`."""

    def __init__(self, pictures: Iterable[Translated], manifest: Manifest) -> None:
        super().__init__(pictures)
        self.manifest = manifest


@dataclass(frozen=True)
class Piece:
    """A part of a picture that was turned into another: its place in the whole, and how many are done of how many."""

    sample: int
    top: int
    left: int
    picture: Picture
    height: int
    """Of the whole, in pixels."""
    width: int
    """Of the whole, in pixels."""
    done: int
    pieces: int


class Canvas:
    """Pieces are put together here, of one picture or many."""

    def __init__(self) -> None:
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._tiles: dict[int, int] = {}

    def put(self, piece: Piece) -> None:
        """Lay a piece down in its place."""
        pixels = piece.picture.pixels
        if piece.sample not in self._pixels:
            shape = piece.height, piece.width, pixels.shape[2]
            self._pixels[piece.sample] = np.zeros(shape, np.uint8)
        height, width = pixels.shape[:2]
        self._pixels[piece.sample][piece.top : piece.top + height, piece.left : piece.left + width] = pixels
        self._tiles[piece.sample] = piece.done

    def translations(self, summary: translate_pb2.TranslateSummary | None) -> Translations:
        """The whole pictures."""
        if summary is None:
            raise InternalError("translate: the stream ended without its summary")
        made = (
            Translated(sample, Picture(tensor=pixels), self._tiles[sample])
            for sample, pixels in sorted(self._pixels.items())
        )
        return Translations(made, manifest_of(summary.manifest))


def translate_request(
    images: ImagesLike, *, model: str, styles: Styles = (), encoding: str = "png", strict: bool = True
) -> translate_pb2.TranslateRequest:
    """The request of `Client.translate`."""
    if isinstance(styles, str):
        styles = [styles]
    weights = styles if isinstance(styles, Mapping) else dict.fromkeys(styles, 1.0)
    return translate_pb2.TranslateRequest(
        model=model,
        images=to_images("images", images),
        styles=[
            translate_pb2.Style(name=name, weight=parameter.real("styles", weight))
            for name, weight in weights.items()
        ],
        encoding=image_pb2.Encoding.ValueType(
            choice.number("encoding", encoding, image_pb2.Encoding.DESCRIPTOR)
        ),
        determinism=determinism(strict),
    )


def translations(message: translate_pb2.TranslateResponse) -> Translations:
    """The answer of `Client.translate`."""
    made = (Translated(one.sample, from_image(one.image), one.tiles) for one in message.pictures)
    return Translations(made, manifest_of(message.manifest))


def piece(message: translate_pb2.Piece) -> Piece:
    """A piece of a streamed answer."""
    return Piece(
        sample=message.sample,
        top=message.top,
        left=message.left,
        picture=from_image(message.image),
        height=message.height,
        width=message.width,
        done=message.done,
        pieces=message.pieces,
    )
