"""DetectService: whether a picture was forged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from iguana.v1 import detect_pb2 as pb
from iguana.v1 import detect_pb2_grpc, error_pb2
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import pipeline


class DetectServicer(detect_pb2_grpc.DetectServiceServicer):
    """Decode, run, encode."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Judge with this engine's models and this codec's detectors."""
        self._engine, self._codec = engine, codec

    async def Detect(  # noqa: N802 - the contract's name, as below
        self, request: pb.DetectRequest, context: Context
    ) -> pb.DetectResponse:
        """Judge a batch."""
        return await self._detect(request, Origin.of(context))

    async def StreamDetect(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamDetectRequest], context: Context
    ) -> AsyncIterator[pb.StreamDetectResponse]:
        """Judge batches as they come."""
        origin = Origin.of(context)

        async def answer(item: pb.StreamDetectRequest) -> pb.StreamDetectResponse:
            response = await self._detect(item.request, origin, "request.")
            return pb.StreamDetectResponse(id=item.id, response=response)

        def refuse(name: str, failure: error_pb2.Failure) -> pb.StreamDetectResponse:
            return pb.StreamDetectResponse(id=name, failure=failure)

        most = self._codec.limits.max_stream_items
        async with aclosing(pipeline(request_iterator, answer, refuse, most=most)) as replies:
            async for reply in replies:
                yield reply

    async def _detect(self, request: pb.DetectRequest, origin: Origin, path: str = "") -> pb.DetectResponse:
        order = await self._codec.to_detect(request, origin, path)
        looked = await self._engine.run(order.job)
        return await self._codec.from_detected(order, looked)
