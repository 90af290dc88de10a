"""GenerateService: pictures of latent codes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from iguana.v1 import generate_pb2 as pb
from iguana.v1 import generate_pb2_grpc
from iguana_server.engine.answer import Mapped
from iguana_server.engine.loop import Engine
from iguana_server.rpc.context import Context
from iguana_server.rpc.generation import Generation
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import replies


class GenerateServicer(generate_pb2_grpc.GenerateServiceServicer):
    """Decode, run, encode."""

    def __init__(self, engine: Engine, codec: Generation) -> None:
        """Answer with this engine's generators."""
        self._engine, self._codec = engine, codec

    async def Generate(  # noqa: N802 - the contract's name, as below
        self, request: pb.GenerateRequest, context: Context
    ) -> pb.GenerateResponse:
        """Make a batch."""
        return await self._generate(request, Origin.of(context))

    async def WatchGenerate(  # noqa: N802
        self, request: pb.WatchGenerateRequest, context: Context
    ) -> AsyncIterator[pb.WatchGenerateResponse]:
        """Make a batch, and send each picture when it is ready."""
        order = await self._codec.to_generate(request.request, Origin.of(context), "request.", whole=False)
        pictures = 0
        async with aclosing(self._engine.stream(order.job)) as events:
            async for event in events:
                assert isinstance(event, Mapped)  # noqa: S101 - the job's kind
                pictures += 1
                yield pb.WatchGenerateResponse(picture=await self._codec.from_one(order, event))
        yield pb.WatchGenerateResponse(summary=pb.GenerateSummary(pictures=pictures, manifest=order.manifest))

    async def StreamGenerate(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamGenerateRequest], context: Context
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        """Make batches as they come."""
        answer = partial(self._generate, origin=Origin.of(context), path="request.")
        most = self._codec.limits.max_stream_items
        async with aclosing(replies(request_iterator, pb.StreamGenerateResponse, answer, most=most)) as made:
            async for reply in made:
                yield reply

    async def Invert(  # noqa: N802
        self, request: pb.InvertRequest, context: Context
    ) -> pb.InvertResponse:
        """Look for the codes of pictures."""
        order = await self._codec.to_invert(request, Origin.of(context))
        return await self._codec.from_inverted(order, await self._engine.run(order.job))

    async def Score(  # noqa: N802
        self, request: pb.ScoreRequest, context: Context
    ) -> pb.ScoreResponse:
        """Ask the discriminator."""
        order = await self._codec.to_score(request, Origin.of(context))
        return await self._codec.from_scored(order, await self._engine.run(order.job))

    async def _generate(
        self, request: pb.GenerateRequest, origin: Origin, path: str = ""
    ) -> pb.GenerateResponse:
        order = await self._codec.to_generate(request, origin, path)
        return await self._codec.from_generated(order, await self._engine.run(order.job))
