"""DetectService: whether a picture was forged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from iguana.v1 import detect_pb2 as pb
from iguana.v1 import detect_pb2_grpc
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import replies


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
        answer = partial(self._detect, origin=Origin.of(context), path="request.")
        most = self._codec.limits.max_stream_items
        async with aclosing(replies(request_iterator, pb.StreamDetectResponse, answer, most=most)) as made:
            async for reply in made:
                yield reply

    async def _detect(self, request: pb.DetectRequest, origin: Origin, path: str = "") -> pb.DetectResponse:
        order = await self._codec.to_detect(request, origin, path)
        looked = await self._engine.run(order.job)
        return await self._codec.from_detected(order, looked)
