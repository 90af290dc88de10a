"""The codec of what concerns translators: messages to jobs, answers to messages. See codec.py."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch

from iguana.v1 import manifest_pb2, translate_pb2
from iguana_server import ops
from iguana_server.engine.synthesis import MapJob
from iguana_server.errors import InvalidArgument
from iguana_server.rpc.bounds import MAX_STYLE_WEIGHT
from iguana_server.rpc.faults import Faults, bound, number, text
from iguana_server.rpc.image import from_bytes, largest, to_picture
from iguana_server.rpc.intake import Intake, named, sound
from iguana_server.rpc.manifest import manifest
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.words import PNG, STRICT
from iguana_server.translators.base import Spec, Translator
from iguana_server.translators.tiles import Tile, cut

_ROW_BYTES = 256  # numbers and frame of an answer for a picture


@dataclass(frozen=True)
class Part:
    """A tile of a picture: the picture's place in the request, the tile, its number among the picture's."""

    sample: int
    tile: Tile
    number: int


@dataclass(frozen=True)
class TranslateOrder:
    """Pictures, the parts they are cut into, in lots that are a job each, and how the answer is to look."""

    pictures: Sequence[torch.Tensor]  # [C, H, W], uint8 or float32
    lots: Sequence[list[Part]]
    tiles: Sequence[int]  # of each picture
    style: torch.Tensor  # [S] weights
    translator: Translator
    origin: Origin
    png: bool
    strict: bool
    manifest: manifest_pb2.Manifest

    def size(self, sample: int) -> tuple[int, int, int]:
        """Return C, H, W of what becomes of a picture."""
        spec, (_, height, width) = self.translator.spec, self.pictures[sample].shape
        return spec.channels[1], spec.scale * height, spec.scale * width


class Translation:
    """Knows the translators; its methods are as those of Codec."""

    def __init__(self, translators: Mapping[str, Translator], intake: Intake) -> None:
        """Take the loaded translators by name."""
        self.translators, self.limits = translators, intake.limits
        self._intake = intake

    async def to_translate(
        self, request: translate_pb2.TranslateRequest, origin: Origin, path: str = "", *, whole: bool = True
    ) -> TranslateOrder:
        """Read a batch of pictures; whole: the answer is one message."""
        faults = Faults(path)
        translator = named("translator", "a translator's name", request.model, self.translators, faults)
        spec = translator.spec
        self._intake.check_count(request.images, faults)
        png = PNG.meanings[PNG.read(faults, "encoding", request.encoding)]
        strict = STRICT.meanings[STRICT.read(faults, "determinism", request.determinism)]
        style = _style(request.styles, spec, faults)
        spend = self._intake.purse(f"{faults.path}images")

        def read(i: int) -> torch.Tensor:
            field = f"{faults.path}images[{i}]"
            picture = to_picture(request.images[i], field, spec.channels[0], self.limits, spend)
            _check_size(picture, field, spec, self.limits.max_whole_pixels)
            self._intake.memory.hold(picture.numel() * picture.element_size(), picture)
            return picture

        pictures = await self._intake.read_each(request.images, read, faults)
        faults.check()
        parts = [
            [Part(i, tile, k) for k, tile in enumerate(_tiles(picture, spec))]
            for i, picture in enumerate(pictures)
        ]
        order = TranslateOrder(
            pictures,
            _lots([part for own in parts for part in own], translator.max_batch),
            [len(own) for own in parts],
            style,
            translator,
            origin,
            png,
            strict,
            manifest(translator, strict=strict),
        )
        self._intake.check_cost(sum(len(own) * row_cost(spec, own[0].tile) for own in parts), faults)
        if whole:
            self._check_reply(order, faults)
        return order

    async def to_job(self, order: TranslateOrder, lot: Sequence[Part]) -> MapJob:
        """Make a lot of tiles, all of one shape, ready for the engine."""
        spec = order.translator.spec
        tile, n = lot[0].tile, len(lot)
        height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
        x = self._intake.memory.images(n, (spec.channels[0], height, width), torch.contiguous_format)
        self._intake.memory.hold(n * spec.channels[1] * spec.scale**2 * height * width, x)  # the answers
        await self._intake.apart(partial(_fill, x, order, lot))
        style = order.style.expand(n, -1)
        return MapJob(
            (x, style),
            row_cost=row_cost(spec, tile),
            **order.origin.of_job(order.translator.name, strict=order.strict),
        )

    async def from_part(self, order: TranslateOrder, part: Part, pixels: torch.Tensor) -> translate_pb2.Piece:
        """Write what is kept of a tile's pixels, uint8 [h, w, C]."""
        return await self._intake.apart(partial(_piece, order, part, pixels))

    def canvas(self, order: TranslateOrder, sample: int) -> torch.Tensor:
        """Return room for what becomes of a picture, uint8 [H, W, C]. Raises Overloaded where there is none."""
        channels, height, width = order.size(sample)
        canvas = torch.empty(height, width, channels, dtype=torch.uint8)
        self._intake.memory.hold(canvas.numel(), canvas)
        return canvas

    async def from_translated(
        self, order: TranslateOrder, canvases: Sequence[torch.Tensor]
    ) -> translate_pb2.TranslateResponse:
        """Write the answer of a batch."""
        made = await self._intake.each(
            partial(_translated, order, sample, canvas) for sample, canvas in enumerate(canvases)
        )
        return translate_pb2.TranslateResponse(pictures=map(sound, made), manifest=order.manifest)

    def _check_reply(self, order: TranslateOrder, faults: Faults) -> None:
        size = sum(largest(order.size(i)) + _ROW_BYTES for i in range(len(order.pictures)))
        if size > self.limits.max_reply_bytes:
            want = (
                f"pictures whose answers take at most {self.limits.max_reply_bytes} bytes, or WatchTranslate"
            )
            faults.add("images", want, f"up to {size}")
            faults.check()


def row_cost(spec: Spec, tile: Tile) -> int:
    """Return the numbers that go into and come out of a pass of a tile."""
    pixels = (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
    return pixels * (spec.channels[0] + spec.channels[1] * spec.scale**2)


def place(part: Part, pixels: torch.Tensor, canvas: torch.Tensor, scale: int) -> None:
    """Copy what is kept of a tile's pixels, uint8 [h, w, C], to its place in its picture's canvas [H, W, C]."""
    part.tile.keep(pixels.permute(2, 0, 1), canvas.permute(2, 0, 1), scale)


def _tiles(picture: torch.Tensor, spec: Spec) -> list[Tile]:
    _, height, width = picture.shape
    return cut(height, width, spec.side, spec.overlap, spec.multiple)


def _lots(parts: Sequence[Part], most: int) -> list[list[Part]]:
    """Cut parts into lots of neighbours of one shape, at most a pass each."""

    def shape(part: Part) -> tuple[int, int]:
        rows, columns = part.tile.rows, part.tile.columns
        return rows.stop - rows.start, columns.stop - columns.start

    lots: list[list[Part]] = []
    for _, alike in groupby(parts, shape):
        run = list(alike)
        lots += [run[i : i + most] for i in range(0, len(run), most)]
    return lots


def _check_size(picture: torch.Tensor, field: str, spec: Spec, most: int) -> None:
    _, height, width = picture.shape
    if min(height, width) < spec.least:
        raise InvalidArgument(field, f"want sides of {spec.least} pixels or more, got {width} x {height}")
    if not spec.overlap and height * width > most:
        raise InvalidArgument(
            field, f"want at most {most} pixels, as {spec.name} has no tiles, got {width} x {height}"
        )


def _style(styles: Sequence[translate_pb2.Style], spec: Spec, faults: Faults) -> torch.Tensor:
    """Read a mixture [S]: weights that sum to 1; the first style where none is given."""
    weights = torch.zeros(len(spec.styles))
    if not spec.styles:
        if styles:
            faults.add("styles", f"none, as {spec.name} has none", str(len(styles)))
        return weights
    seen: set[str] = set()
    for i, style in enumerate(styles):
        if style.name not in spec.styles or style.name in seen:
            close = difflib.get_close_matches(style.name[:64], spec.styles)
            hint = f" (close: {', '.join(close)})" if close else ""
            got = f"{text(style.name)} again" if style.name in seen else f"{text(style.name)}{hint}"
            faults.add(f"styles[{i}].name", f"a style of {spec.name}, each once", got)
            continue
        seen.add(style.name)
        if not 0 <= style.weight <= MAX_STYLE_WEIGHT:  # NaN is not
            faults.add(
                f"styles[{i}].weight", f"(0, {bound(MAX_STYLE_WEIGHT)}], or 0 for 1", number(style.weight)
            )
            continue
        weights[spec.styles.index(style.name)] = style.weight or 1.0
    if not styles:
        weights[0] = 1
    return weights / weights.sum().clamp_min(1e-30)


def _fill(x: torch.Tensor, order: TranslateOrder, lot: Sequence[Part]) -> None:
    """Lay the pixels of tiles, in [0, 1], down in x [n, C, h, w]."""
    for row, part in zip(x, lot, strict=True):
        pixels = part.tile.of(order.pictures[part.sample])
        if pixels.dtype == torch.uint8:
            bytes_ = pixels.permute(1, 2, 0)[None].contiguous()
            ones = torch.ones(pixels.shape[0])
            pixels = ops.pixels_to_float(bytes_, ones, torch.zeros_like(ones), channels_last=False)[0]
        row.copy_(pixels)


def _piece(order: TranslateOrder, part: Part, pixels: torch.Tensor) -> translate_pb2.Piece:
    scale, (rows, columns) = order.translator.spec.scale, (part.tile.rows, part.tile.columns)
    _, height, width = order.size(part.sample)
    kept = pixels[
        scale * (rows.first - rows.start) : scale * (rows.last - rows.start),
        scale * (columns.first - columns.start) : scale * (columns.last - columns.start),
    ]
    return translate_pb2.Piece(
        sample=part.sample,
        top=scale * rows.first,
        left=scale * columns.first,
        image=from_bytes(kept.contiguous(), png=order.png),
        height=height,
        width=width,
        done=part.number + 1,
        pieces=order.tiles[part.sample],
    )


def _translated(order: TranslateOrder, sample: int, canvas: torch.Tensor) -> translate_pb2.Translated:
    image = from_bytes(canvas, png=order.png)
    return translate_pb2.Translated(sample=sample, image=image, tiles=order.tiles[sample])
