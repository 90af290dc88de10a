"""TranslateService: pictures of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

import torch

from iguana.v1 import translate_pb2 as pb
from iguana.v1 import translate_pb2_grpc
from iguana_server.engine.answer import Answer, Mapped
from iguana_server.engine.loop import Engine
from iguana_server.rpc.context import Context
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import replies
from iguana_server.rpc.translation import Part, TranslateOrder, Translation, place


class TranslateServicer(translate_pb2_grpc.TranslateServiceServicer):
    """Decode, run, encode."""

    def __init__(self, engine: Engine, codec: Translation) -> None:
        """Answer with this engine's translators."""
        self._engine, self._codec = engine, codec

    async def Translate(  # noqa: N802 - the contract's name, as below
        self, request: pb.TranslateRequest, context: Context
    ) -> pb.TranslateResponse:
        """Turn a batch."""
        return await self._translate(request, Origin.of(context))

    async def WatchTranslate(  # noqa: N802
        self, request: pb.WatchTranslateRequest, context: Context
    ) -> AsyncIterator[pb.WatchTranslateResponse]:
        """Turn a batch, and send each piece when it is ready."""
        order = await self._codec.to_translate(request.request, Origin.of(context), "request.", whole=False)
        async with aclosing(self._pieces(order)) as pieces:
            async for part, pixels in pieces:
                yield pb.WatchTranslateResponse(piece=await self._codec.from_part(order, part, pixels))
        summary = pb.TranslateSummary(pictures=len(order.pictures), manifest=order.manifest)
        yield pb.WatchTranslateResponse(summary=summary)

    async def StreamTranslate(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamTranslateRequest], context: Context
    ) -> AsyncIterator[pb.StreamTranslateResponse]:
        """Turn batches as they come."""
        answer = partial(self._translate, origin=Origin.of(context), path="request.")
        most = self._codec.limits.max_stream_items
        async with aclosing(replies(request_iterator, pb.StreamTranslateResponse, answer, most=most)) as made:
            async for reply in made:
                yield reply

    async def _translate(
        self, request: pb.TranslateRequest, origin: Origin, path: str = ""
    ) -> pb.TranslateResponse:
        order = await self._codec.to_translate(request, origin, path)
        canvases = [self._codec.canvas(order, sample) for sample in range(len(order.pictures))]
        async with aclosing(self._pieces(order)) as pieces:
            async for part, pixels in pieces:
                place(part, pixels, canvases[part.sample], order.translator.spec.scale)
        return await self._codec.from_translated(order, canvases)

    async def _pieces(self, order: TranslateOrder) -> AsyncGenerator[tuple[Part, torch.Tensor]]:
        """Yield the parts in their order, with their pixels; while a lot is read, the next is under way."""
        ahead: asyncio.Task[list[Answer]] | None = None
        try:
            for lot, following in zip(order.lots, [*order.lots[1:], None], strict=True):
                answers = await (ahead or asyncio.create_task(self._run(order, lot)))
                ahead = None if following is None else asyncio.create_task(self._run(order, following))
                for part, answer in zip(lot, answers, strict=True):
                    assert isinstance(answer, Mapped)  # noqa: S101 - the job's kind
                    yield part, answer.value
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _run(self, order: TranslateOrder, lot: list[Part]) -> list[Answer]:
        return await self._engine.run(await self._codec.to_job(order, lot))
