"""The pipeline of the async client; see `pipeline`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Self

import grpc
import grpc.aio

from iguana.errors import IguanaError, from_rpc_error
from iguana.pipeline import Again, Answered, Breaks, InFlight, Request


class Outbox(asyncio.Queue[Request | None]):
    """The requests to send over one stream, as an iterator; None ends them."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        if (request := await self.get()) is None:
            raise StopAsyncIteration
        return request


class AsyncPipeline:
    """One run of a pipeline. The source is read in a task of its own, at most one item ahead."""

    def __init__(
        self,
        open_call: Callable[[AsyncIterator[Any]], grpc.aio.StreamStreamCall[Any, Any]],
        source: AsyncIterator[Request],
        in_flight: InFlight,
        retries: int,
    ) -> None:
        self._open_call, self._source = open_call, source
        self._window = asyncio.Semaphore(in_flight.limit)
        self._breaks = Breaks(retries)
        self._in_flight = in_flight
        self._outbox = Outbox()
        self._exhausted = False
        self._source_error: Exception | None = None

    async def run(self) -> AsyncGenerator[Answered]:
        """Yields each item's answer. Closing it cancels what is in flight."""
        loop = asyncio.get_running_loop()
        feeder = asyncio.create_task(self._feed())
        try:
            while not self._done():
                broken: IguanaError | None = None
                call = self._reopen()
                try:
                    async for message in call:
                        self._breaks.answered()
                        settled = self._in_flight.settle(message)
                        self._end_if_done()
                        if isinstance(settled, Again):
                            loop.call_later(settled.pause_s, self._outbox.put_nowait, settled.request)
                        elif settled is not None:
                            self._window.release()
                            yield message.id, settled
                    if not self._done():
                        broken = self._in_flight.unanswered()
                except grpc.RpcError as error:
                    broken = from_rpc_error(error)
                finally:
                    call.cancel()
                    self._outbox.put_nowait(None)
                if broken is not None:
                    pause_s = self._breaks.pause_s(broken)
                    for answered in self._in_flight.expire(broken):
                        self._window.release()
                        yield answered
                    await asyncio.sleep(pause_s)
        finally:
            feeder.cancel()
            await asyncio.wait([feeder])
        if self._source_error is not None:
            raise self._source_error

    def _reopen(self) -> grpc.aio.StreamStreamCall[Any, Any]:
        self._outbox = Outbox()
        for request in self._in_flight.reopen():
            self._outbox.put_nowait(request)
        self._end_if_done()
        self._breaks.opened()
        return self._open_call(self._outbox)

    async def _feed(self) -> None:
        try:
            async for request in self._source:
                await self._window.acquire()
                self._in_flight.add(request)
                self._outbox.put_nowait(request)
        except Exception as error:  # run raises it, in the caller's task
            self._source_error = error
        self._exhausted = True
        self._end_if_done()

    def _done(self) -> bool:
        return self._exhausted and not self._in_flight

    def _end_if_done(self) -> None:
        if self._done():
            self._outbox.put_nowait(None)
