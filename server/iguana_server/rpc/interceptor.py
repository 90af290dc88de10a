"""What every call passes through, on its way in and out: parsing, deadline, status, metrics, span.

    bytes -> Interceptor { observe { deadline { parse -> servicer method -> serialise } -> status } } -> bytes

It is one interceptor because the parts need each other: the span must know the status, the status the
deadline, and grpc would answer a request that does not parse by itself, as UNKNOWN.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from iguana_server.config import Limits
from iguana_server.errors import DeadlineExceeded, ServeError, Unavailable
from iguana_server.rpc import status
from iguana_server.rpc.call import Call
from iguana_server.rpc.context import Context
from iguana_server.telemetry import Telemetry

T = TypeVar("T")
Handler: TypeAlias = Any  # grpc.RpcMethodHandler, which the stubs know for synchronous methods alone
Parse = Callable[[bytes], Any]

OURS = "iguana."  # such methods are work; the others (health, reflection) have no deadline of ours
SKEW_S = 0.05  # between a deadline at the client and here
SEND_S = 1.0  # for a status to leave


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every method; knows the calls that run."""

    def __init__(self, telemetry: Telemetry, limits: Limits) -> None:
        """Tell `telemetry` of every call; `limits` has the deadlines."""
        self._telemetry, self._limits = telemetry, limits
        self._handlers: dict[str, Handler] = {}
        self._arriving: dict[asyncio.Task[Any], grpc.HandlerCallDetails] = {}  # the request is not here yet
        self._running: dict[asyncio.Task[Any], str] = {}
        self._closed: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, wrapped; a method that does not exist ends as UNIMPLEMENTED here."""
        task = _current_task()
        self._arriving[task] = handler_call_details
        task.add_done_callback(self._given_up)
        method = handler_call_details.method.removeprefix("/")
        wrapped = self._handlers.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._wrap(method, _unimplemented())
            wrapped = self._handlers[method] = self._wrap(method, handler)
        return wrapped

    async def drain(self, timeout_s: float) -> bool:
        """Wait for the calls in flight to end; say whether they did. Health and reflection don't count."""
        until = time.monotonic() + timeout_s
        while work := [task for task, method in self._running.items() if method.startswith(OURS)]:
            if time.monotonic() >= until:
                return False
            await asyncio.wait(work, timeout=until - time.monotonic())
        return True

    def close(self) -> None:
        """End all calls that still run, watchers of health among them, as UNAVAILABLE."""
        self._closed.update(self._running)
        for task in self._closed:
            task.cancel()

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """Return a handler of the same shape that takes bytes."""
        parse = _parser(method, handler.request_deserializer)
        serialise = handler.response_serializer or _same

        def incoming(raw: Any) -> Any:
            return _parsed(raw, parse) if handler.request_streaming else parse(raw)

        async def unary(raw: Any, context: Context) -> bytes:
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary

            async def work() -> bytes:
                body: bytes = serialise(await behaviour(incoming(raw), context))
                return body

            return await self._run(method, context, work, pipeline=handler.request_streaming)

        async def stream(raw: Any, context: Context) -> None:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

            async def work() -> None:
                if inspect.iscoroutinefunction(behaviour):  # it writes by itself
                    await behaviour(incoming(raw), context)
                    return
                async with aclosing(behaviour(incoming(raw), context)) as responses:
                    async for response in responses:
                        await context.write(response)

            await self._run(method, context, work, pipeline=handler.request_streaming)

        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, response_serializer=handler.response_serializer)
        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(unary)

    async def _run(
        self, method: str, context: Context, work: Callable[[], Awaitable[T]], *, pipeline: bool
    ) -> T:
        """Run a method under its deadline and end the call with the right status."""
        task = _current_task()
        del self._arriving[task]
        self._running[task] = method
        try:
            with self._telemetry.call(method, context.invocation_metadata() or ()) as observation:
                allowed = self._allowed(method, context.time_remaining(), pipeline=pipeline)
                Call(method, time.monotonic() + allowed, self._telemetry.current_span()).enter()
                try:
                    return await _within(allowed, work)
                except asyncio.CancelledError:
                    if task not in self._closed:
                        observation.code = _why_cancelled(context)
                        raise
                    task.uncancel()  # by close(), not by the caller, who waits for a status
                    refusal: ServeError = Unavailable("the server is stopping")
                except grpc.aio.AbortError:
                    observation.code = context.code().name
                    raise
                except grpc.aio.InternalError:  # the connection is gone: there is nobody to tell
                    observation.code = "CANCELLED"
                    raise
                except Exception as error:
                    refusal = status.refusal(error)
                observation.code = refusal.code
            return await _refuse(context, refusal)
        finally:
            del self._running[task]

    def _given_up(self, task: asyncio.Task[Any]) -> None:
        """Count a call whose caller left before its request was here: grpc ends it without its handler."""
        if details := self._arriving.pop(task, None):
            method, metadata = details.method.removeprefix("/"), details.invocation_metadata
            with self._telemetry.call(method, metadata or ()) as observation:
                observation.code = "CANCELLED"

    def _allowed(self, method: str, remaining_s: float | None, *, pipeline: bool) -> float:
        """Return the seconds a call may take; a pipeline lives as long as its caller sends, within the limit."""
        if not method.startswith(OURS):
            return math.inf
        if remaining_s is None:
            return self._limits.max_deadline_s if pipeline else self._limits.default_deadline_s
        return min(remaining_s, self._limits.max_deadline_s)


def _current_task() -> asyncio.Task[Any]:
    """Return the task that runs: grpc's own, one a call, from its headers to its status."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def _why_cancelled(context: Context) -> str:
    """Tell a caller's deadline from a caller that left.

    A client cancels by itself at its deadline, and that may come a moment before the server's own clock.
    """
    remaining_s = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining_s is not None and remaining_s < SKEW_S else "CANCELLED"


async def _refuse(context: Context, refusal: ServeError) -> NoReturn:
    """Send the status. It queues behind a message that a slow reader has not taken: don't wait for that.

    Nor can it be sent to a caller that leaves in this very moment.
    """
    # grpc keeps the last call's error until the next call: without its frames, which hold the images.
    refusal.__traceback__ = refusal.__context__ = refusal.__cause__ = None
    try:
        async with asyncio.timeout(SEND_S):
            await status.abort(context, refusal)
    except (TimeoutError, grpc.aio.InternalError):
        raise asyncio.CancelledError from None  # grpc's way to end a handler in silence


async def _within(seconds: float, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, or raise DeadlineExceeded; work that is late from the start is not begun."""
    if seconds <= 0:
        raise DeadlineExceeded("deadline: want an answer later than the call's arrival, got 0 s")
    timer = asyncio.timeout(None if seconds == math.inf else seconds)
    try:
        async with timer:
            return await work()
    except TimeoutError:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"deadline: the answer was not ready within {seconds:.3g} s") from None


def _parser(method: str, parse: Parse | None) -> Parse:
    def checked(raw: bytes) -> Any:
        try:
            return parse(raw) if parse else raw
        except DecodeError:
            raise status.MalformedBody("request", f"want the message of {method}, got other bytes") from None

    return checked


async def _parsed(raws: AsyncIterator[bytes], parse: Parse) -> AsyncIterator[Any]:
    async for raw in raws:
        yield parse(raw)


def _same(message: Any) -> Any:
    return message


def _unimplemented() -> Handler:
    async def refuse(_: object, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    return grpc.stream_stream_rpc_method_handler(refuse)  # it refuses before a message: any shape will do
