"""ClassifyService: what is in a picture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from iguana.v1 import classify_pb2 as pb
from iguana.v1 import classify_pb2_grpc, error_pb2
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import pipeline


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
        origin = Origin.of(context)

        async def answer(item: pb.StreamClassifyRequest) -> pb.StreamClassifyResponse:
            response = await self._classify(item.request, origin, "request.")
            return pb.StreamClassifyResponse(id=item.id, response=response)

        def refuse(name: str, failure: error_pb2.Failure) -> pb.StreamClassifyResponse:
            return pb.StreamClassifyResponse(id=name, failure=failure)

        most = self._codec.limits.max_stream_items
        async with aclosing(pipeline(request_iterator, answer, refuse, most=most)) as replies:
            async for reply in replies:
                yield reply

    async def _classify(
        self, request: pb.ClassifyRequest, origin: Origin, path: str = ""
    ) -> pb.ClassifyResponse:
        order = await self._codec.to_classify(request, origin, path)
        looked = await self._engine.run(order.job)
        return await self._codec.from_looked(order, looked)
