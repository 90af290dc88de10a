"""ClassifyService: what is in a picture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from iguana.v1 import classify_pb2 as pb
from iguana.v1 import classify_pb2_grpc
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import replies


class ClassifyServicer(classify_pb2_grpc.ClassifyServiceServicer):
    """Decode, run, encode."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Answer with this engine's models."""
        self._engine, self._codec = engine, codec

    async def Classify(  # noqa: N802 - the contract's name, as below
        self, request: pb.ClassifyRequest, context: Context
    ) -> pb.ClassifyResponse:
        """Judge a batch."""
        return await self._classify(request, Origin.of(context))

    async def StreamClassify(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamClassifyRequest], context: Context
    ) -> AsyncIterator[pb.StreamClassifyResponse]:
        """Judge batches as they come."""
        answer = partial(self._classify, origin=Origin.of(context), path="request.")
        most = self._codec.limits.max_stream_items
        async with aclosing(replies(request_iterator, pb.StreamClassifyResponse, answer, most=most)) as made:
            async for reply in made:
                yield reply

    async def _classify(
        self, request: pb.ClassifyRequest, origin: Origin, path: str = ""
    ) -> pb.ClassifyResponse:
        order = await self._codec.to_classify(request, origin, path)
        looked = await self._engine.run(order.job)
        return await self._codec.from_looked(order, looked)
