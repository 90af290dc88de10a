"""Pipelines: many requests on one bidirectional stream, so many in flight and no more.

A pipeline outlives a restart of the server and the longest life of a call: when its stream breaks, it is opened
again and what had no answer is sent again (equal requests give equal bytes). An item that is not done in the
whole life of a stream is answered with `DeadlineExceeded`. An item refused because
the queue is full is sent again when the server says, until the client's time-out of a call has passed for it.
What the server refuses is that item's answer. What never reaches the server (an unknown keyword, a missing
file, an exception of the source) ends the pipeline: the items in flight are answered, then it is raised.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from iguana import retry
from iguana.channel import check_size
from iguana.errors import IguanaError, Unavailable, from_failure, from_rpc_error, invalid
from iguana.v1 import attack_pb2, classify_pb2, detect_pb2, generate_pb2, translate_pb2

Request: TypeAlias = (
    attack_pb2.StreamAttackRequest
    | classify_pb2.StreamClassifyRequest
    | detect_pb2.StreamDetectRequest
    | generate_pb2.StreamGenerateRequest
    | translate_pb2.StreamTranslateRequest
)
Response: TypeAlias = (
    attack_pb2.StreamAttackResponse
    | classify_pb2.StreamClassifyResponse
    | detect_pb2.StreamDetectResponse
    | generate_pb2.StreamGenerateResponse
    | translate_pb2.StreamTranslateResponse
)
STREAM_S = 3600.0
"""The time-out of a stream: the longest that a server lets a call last, unless it is told otherwise."""
STREAM_BREAKS = (*retry.RETRYABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
Answered: TypeAlias = tuple[str, Any]
"""An item's id, and its response message or `IguanaError`."""


@dataclass(frozen=True)
class Again:
    """An item to send again after a pause."""

    request: Request
    pause_s: float


class InFlight:
    """The items that were sent and have no answer yet, by id."""

    def __init__(self, limit: int, patience_s: float, retries: int, max_bytes: int) -> None:
        if limit < 1:
            raise invalid("in_flight", "at least 1", limit)
        self.limit = limit
        self._patience_s, self._retries, self._max_bytes = patience_s, retries, max_bytes
        self._items: dict[str, tuple[Request, retry.Deadline]] = {}
        self._since_opening: set[str] = set()

    def __len__(self) -> int:
        return len(self._items)

    def reopen(self) -> list[Request]:
        """The items to send over a new stream, oldest first."""
        self._since_opening = set(self._items)
        return [request for request, _ in self._items.values()]

    def expire(self, broken: IguanaError) -> list[Answered]:
        """End the items that had the whole life of a stream, if that is why it broke."""
        if broken.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return []
        late = [i for i in self._items if i in self._since_opening]
        for i in late:
            del self._items[i]
        return [(i, broken) for i in late]

    def add(self, request: Request) -> None:
        """Take in an item. Raises `InvalidArgument` if it is too large or its id is another one's."""
        check_size(request, self._max_bytes)
        if request.id in self._items:
            raise invalid("id", "one that no item in flight has", repr(request.id))
        self._items[request.id] = request, retry.Deadline(self._patience_s)

    def settle(self, message: Response) -> Any:
        """What a message means for its item: its response, its `IguanaError`, or `Again`.

        None if nothing is waiting for it: an item that was sent twice over a break may be answered twice.
        """
        if message.id not in self._items:
            return None
        request, deadline = self._items[message.id]
        if message.WhichOneof("kind") == "response":
            del self._items[message.id]
            return message.response
        error = from_failure(message.failure)
        pause_s = retry.overload_pause_s(error, deadline, self._retries)
        if pause_s is not None:
            return Again(request, pause_s)
        del self._items[message.id]
        return error

    def unanswered(self) -> IguanaError:
        """The error of a stream that the server closed too early."""
        return Unavailable(f"the server closed the stream with {len(self)} items unanswered")


class Breaks:
    """Counts how often in a row a stream broke as soon as it was opened."""

    def __init__(self, retries: int) -> None:
        self._retries, self._failures, self._opened_s = retries, 0, 0.0

    def opened(self) -> None:
        """A stream was opened."""
        self._opened_s = time.monotonic()

    def answered(self) -> None:
        """The stream works."""
        self._failures = 0

    def pause_s(self, error: IguanaError) -> float:
        """Seconds to wait before opening it again. Raises `error` if that is of no use."""
        if time.monotonic() - self._opened_s > retry.STEADY_S:
            self._failures = 0
        self._failures += 1
        if error.code not in STREAM_BREAKS or self._failures > self._retries:
            raise error
        return retry.reconnect_pause_s(self._failures)


class Pipeline:
    """One run of a pipeline. The source is read in a thread of its own, at most one item ahead."""

    def __init__(
        self,
        open_call: Callable[[Iterator[Any]], grpc._CallIterator[Any]],
        source: Iterable[Request],
        in_flight: InFlight,
        retries: int,
    ) -> None:
        self._open_call, self._source = open_call, source
        self._window = threading.Semaphore(in_flight.limit)
        self._breaks = Breaks(retries)
        self._lock = threading.Lock()  # over what follows
        self._in_flight = in_flight
        self._outbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()  # None ends the sending side
        self._exhausted = False
        self._closed = False
        self._source_error: BaseException | None = None

    def run(self) -> Generator[Answered]:
        """Yields each item's answer. Closing it cancels what is in flight."""
        threading.Thread(target=self._feed, name="iguana-pipeline", daemon=True).start()
        try:
            while (broken := (yield from self._stream())) is not None:
                pause_s = self._breaks.pause_s(broken)
                with self._lock:
                    expired = self._in_flight.expire(broken)
                for answered in expired:
                    self._window.release()
                    yield answered
                time.sleep(pause_s)
        finally:
            with self._lock:
                self._closed = True
            self._window.release()
        if self._source_error is not None:
            raise self._source_error

    def _stream(self) -> Generator[Answered, None, IguanaError | None]:
        """Answers over one stream; returns why it broke, or None when all is done."""
        with self._lock:
            outbox = self._outbox = queue.SimpleQueue()
            for request in self._in_flight.reopen():
                outbox.put(request)
            self._end_if_done()
        self._breaks.opened()
        call = self._open_call(iter(outbox.get, None))
        try:
            for message in call:
                self._breaks.answered()
                with self._lock:
                    settled = self._in_flight.settle(message)
                    self._end_if_done()
                if isinstance(settled, Again):
                    later = threading.Timer(settled.pause_s, outbox.put, (settled.request,))
                    later.daemon = True
                    later.start()
                elif settled is not None:
                    self._window.release()
                    yield message.id, settled
        except grpc.RpcError as error:
            return from_rpc_error(error)
        finally:
            call.cancel()
            outbox.put(None)
        with self._lock:
            return None if self._done() else self._in_flight.unanswered()

    def _feed(self) -> None:
        try:
            for request in self._source:
                self._window.acquire()
                with self._lock:
                    if self._closed:
                        return
                    self._in_flight.add(request)
                    self._outbox.put(request)
        except BaseException as error:  # run raises it, in the caller's thread
            self._source_error = error
        with self._lock:
            self._exhausted = True
            self._end_if_done()

    def _done(self) -> bool:
        return self._exhausted and not self._in_flight

    def _end_if_done(self) -> None:
        if self._done():
            self._outbox.put(None)
