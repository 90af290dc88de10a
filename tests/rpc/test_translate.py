"""TranslateService over a real channel."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray
from PIL import Image

from iguana.v1 import image_pb2, translate_pb2
from tests.made import SCALE, STYLES, small_translator
from tests.rpc.service import LIMITS, Service, serving
from tests.rpc.test_generate import pixels, violations

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENSOR = image_pb2.ENCODING_TENSOR
SIZES = [(24, 24), (60, 40), (7, 9), (24, 25), (6, 90)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    async with serving(networks=(small_translator(), small_translator("painter", styled=True))) as running:
        yield running


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(array: NDArray[Any]) -> image_pb2.Image:
    dtype = image_pb2.DTYPE_UINT8 if array.dtype == np.uint8 else image_pb2.DTYPE_FLOAT32
    return image_pb2.Image(tensor=image_pb2.Tensor(data=array.tobytes(), dtype=dtype, shape=array.shape))


def ask(
    arrays: Sequence[NDArray[Any]], model: str = "small-superres", **fields: Any
) -> translate_pb2.TranslateRequest:
    images = [tensor(array) for array in arrays]
    return translate_pb2.TranslateRequest(model=model, images=images, **({"encoding": TENSOR} | fields))


def untiled(array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network makes of a picture as a whole, whose sides the multiple divides."""
    x = torch.tensor(array).permute(2, 0, 1)[None] / 255
    made: NDArray[np.float32] = small_translator()(x, torch.zeros(1, 0))[0].permute(1, 2, 0).numpy() * 255
    return made


@pytest.mark.parametrize("size", [(24, 24), (60, 40), (100, 24), (28, 132), (8, 12)])
async def test_tiles_have_no_seams(service: Service, size: tuple[int, int]) -> None:
    array = photo(*size)
    reply = await service.translate.Translate(ask([array]))
    (made,) = reply.pictures
    assert pixels(made.image).shape == (SCALE * size[0], SCALE * size[1], 3)
    assert (made.tiles > 1) == (max(size) > 24)
    assert np.abs(pixels(made.image) - untiled(array)).max() <= 0.51  # half a grey level is the rounding


async def test_pictures_of_unlike_sizes_in_one_request(service: Service) -> None:
    arrays = [photo(*size, seed=i) for i, size in enumerate(SIZES)]
    whole = await service.translate.Translate(ask(arrays))
    for i, (array, made) in enumerate(zip(arrays, whole.pictures, strict=True)):
        alone = await service.translate.Translate(ask([array]))
        assert made.sample == i
        assert made.image == alone.pictures[0].image
        assert pixels(made.image).shape == (SCALE * array.shape[0], SCALE * array.shape[1], 3)


async def test_files_and_tensors_bytes_and_floats_agree(service: Service) -> None:
    array = photo(31, 45)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    images = [
        image_pb2.Image(encoded=file.getvalue()),
        tensor(array),
        tensor(array.astype(np.float32) / np.float32(255)),
    ]
    request = translate_pb2.TranslateRequest(model="small-superres", images=images)
    reply = await service.translate.Translate(request)
    assert len({made.image.encoded for made in reply.pictures}) == 1
    raw = await service.translate.Translate(ask([array]))
    assert np.array_equal(pixels(raw.pictures[0].image), pixels(reply.pictures[0].image))


async def test_the_answer_does_not_depend_on_the_company(service: Service) -> None:
    arrays = [photo(*size, seed=i) for i, size in enumerate(SIZES)] * 2
    alone = [await service.translate.Translate(ask([array])) for array in arrays]
    together = await asyncio.gather(*(service.translate.Translate(ask([array])) for array in arrays))
    assert list(together) == alone


async def test_pieces_cover_the_picture_from_top_to_bottom(service: Service) -> None:
    arrays = [photo(60, 40), photo(24, 24), photo(10, 70)]
    whole = await service.translate.Translate(ask(arrays))
    watch = translate_pb2.WatchTranslateRequest(request=ask(arrays))
    messages = [message async for message in service.translate.WatchTranslate(watch)]
    assert messages[-1].summary == translate_pb2.TranslateSummary(pictures=3, manifest=whole.manifest)
    canvases = [np.zeros((SCALE * a.shape[0], SCALE * a.shape[1], 3), np.uint8) for a in arrays]
    counts = [np.zeros(canvas.shape[:2], int) for canvas in canvases]
    for message in messages[:-1]:
        piece = message.piece
        part = pixels(piece.image)
        rows, columns = (
            slice(piece.top, piece.top + part.shape[0]),
            slice(piece.left, piece.left + part.shape[1]),
        )
        canvases[piece.sample][rows, columns] = part
        counts[piece.sample][rows, columns] += 1
        assert (piece.height, piece.width) == canvases[piece.sample].shape[:2]
    for i, made in enumerate(whole.pictures):
        assert np.array_equal(canvases[i], pixels(made.image))
        assert (counts[i] == 1).all()
        own = [m.piece for m in messages[:-1] if m.piece.sample == i]
        assert [piece.done for piece in own] == list(range(1, made.tiles + 1))
        assert [piece.top for piece in own] == sorted(piece.top for piece in own)


async def test_a_mixture_of_styles_is_the_networks(service: Service) -> None:
    array = photo(24, 24)
    styles = [translate_pb2.Style(name="oil", weight=3), translate_pb2.Style(name="ink")]
    reply = await service.translate.Translate(ask([array], "painter", styles=styles))
    x = torch.tensor(array).permute(2, 0, 1)[None] / 255
    want = (
        small_translator(styled=True)(x, torch.tensor([[0.25, 0.75, 0.0]]))[0].permute(1, 2, 0).numpy() * 255
    )
    assert np.abs(pixels(reply.pictures[0].image) - want).max() <= 0.51
    first = await service.translate.Translate(ask([array], "painter"))
    named = await service.translate.Translate(
        ask([array], "painter", styles=[translate_pb2.Style(name=STYLES[0])])
    )
    assert first == named


async def test_a_pipeline_answers_each_item_by_its_id(service: Service) -> None:
    async def items() -> AsyncIterator[translate_pb2.StreamTranslateRequest]:
        for i in range(6):
            request = ask([photo(24, 24, seed=i)]) if i % 2 else ask([photo(3, 3)])
            yield translate_pb2.StreamTranslateRequest(id=str(i), request=request)

    replies = {reply.id: reply async for reply in service.translate.StreamTranslate(items())}
    for i in range(6):
        if i % 2:
            assert replies[str(i)].response == await service.translate.Translate(ask([photo(24, 24, seed=i)]))
        else:
            assert "images[0]" in replies[str(i)].failure.message


@pytest.mark.parametrize(
    ("request_", "field", "said"),
    [
        (ask([]), "images", "want 1..6 images, got 0"),
        (ask([photo(1, 1)]), "images[0]", "want sides of 6 pixels or more, got 1 x 1"),
        (ask([photo(24, 24), photo(5, 90)]), "images[1]", "want sides of 6 pixels or more, got 90 x 5"),
        (ask([photo(100, 60)], "painter"), "images[0]", "want at most 5000 pixels, as painter has no tiles"),
        (ask([photo(1, 301)]), "images[0].tensor.shape", "want [1..300, 1..300, 3], got [1, 301, 3]"),
        (ask([photo(300, 300)]), "images[0].tensor.shape", "want at most 40000 pixels"),
        (ask([photo(8, 8)[:, :, :1]]), "images[0].tensor.shape", "want [1..300, 1..300, 3], got [8, 8, 1]"),
        (ask([photo(8, 8).astype(np.float32)]), "images[0].tensor.data", "want finite pixels in [0, 1]"),
        (ask([photo(9, 9)], styles=[translate_pb2.Style(name="oil")]), "styles", "want none, as small-superres has none, got 1"),
        (ask([photo(9, 9)], "painter", styles=[translate_pb2.Style(name="oils")]), "styles[0].name", "want a style of painter, each once, got 'oils' (close: oil)"),
        (ask([photo(9, 9)], "painter", styles=[translate_pb2.Style(name="oil")] * 2), "styles[1].name", "got 'oil' again"),
        (ask([photo(9, 9)], "painter", styles=[translate_pb2.Style(name="oil", weight=-1)]), "styles[0].weight", "want (0, 1000], or 0 for 1, got -1"),
        (ask([photo(9, 9)], "Painter"), "model", "want a translator's name from ModelService.ListModels"),
        (ask([photo(9, 9)], encoding=3), "encoding", "want ENCODING_PNG or ENCODING_TENSOR, got 3"),
    ],
)  # fmt: skip
async def test_bad_requests_are_refused_by_name(
    service: Service, request_: translate_pb2.TranslateRequest, field: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.translate.Translate(request_)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in violations(refusal.value)[field], violations(refusal.value)


async def test_a_file_of_100000_pixels_a_side_is_refused_by_its_header(service: Service) -> None:
    header = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    )

    data = header + zlib.crc32(header[12:]).to_bytes(4, "big") + b"\x00\x00\x00\x00IDAT5\xaf\x06\x1e"
    request = translate_pb2.TranslateRequest(model="small-superres", images=[image_pb2.Image(encoded=data)])
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.translate.Translate(request)
    assert "got 100000 x 100000" in violations(refusal.value)["images[0].encoded"]


async def test_an_answer_that_could_not_be_sent_may_be_watched() -> None:
    limits = replace(LIMITS, max_reply_bytes=20_000)
    async with serving(networks=[small_translator()], limits=limits) as service:
        request = ask([photo(60, 40)])
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await service.translate.Translate(request)
        assert "at most 20000 bytes, or WatchTranslate" in violations(refusal.value)["images"]
        watch = translate_pb2.WatchTranslateRequest(request=request)
        assert len([message async for message in service.translate.WatchTranslate(watch)]) > 2
