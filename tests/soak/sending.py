"""Sending bytes that may be anything to any rpc, and what an answer may be."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from tests.soak.contract import Rpc

PATIENCE_S = 20.0  # for what asks for a step or none
ALLOWED = frozenset(
    grpc.StatusCode[name] for name in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED")
)
NUMBERS = frozenset(code.value[0] for code in ALLOWED)
INSIDE = re.compile(
    r'Traceback|File "|\.py\b|/site-packages|/iguana_server|0x[0-9a-f]{6,}'
)  # not for callers
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    replies: Sequence[bytes]
    seconds: float

    def faults(self, rpc: Rpc) -> Iterable[str]:
        """What no caller may ever see."""
        if self.code not in ALLOWED:
            yield f"{self.code.name}: {self.details}"
        if INSIDE.search(self.details):
            yield f"the details tell of the inside: {self.details}"
        for body in self.replies:
            reply = rpc.response.FromString(body)
            if "failure" in reply.DESCRIPTOR.fields_by_name and reply.HasField("failure"):
                yield from _failing(reply)
        if self.code is grpc.StatusCode.OK and not rpc.client_streams and not self.replies:
            yield "OK without an answer"


def send(
    channel: grpc.Channel,
    rpc: Rpc,
    bodies: Sequence[bytes],
    metadata: Metadata = (),
    compression: grpc.Compression | None = None,
) -> Answer:
    """Send these messages to a method of any shape, and read what comes back."""
    method = channel.stream_stream(rpc.path, request_serializer=bytes, response_deserializer=bytes)
    began = time.perf_counter()
    call = method(iter(bodies), timeout=PATIENCE_S, metadata=tuple(metadata), compression=compression)
    replies: list[bytes] = []
    try:
        for body in call:
            replies.append(body)
            if rpc.endless:
                call.cancel()
                return Answer(grpc.StatusCode.OK, "", replies, time.perf_counter() - began)
    except grpc.RpcError:
        pass  # the code says it
    seconds = time.perf_counter() - began
    return Answer(call.code(), call.details() or "", replies, seconds)


def _failing(reply: Message) -> Iterable[str]:
    failure = reply.failure  # type: ignore[attr-defined]  # of both pipelines
    if failure.code not in NUMBERS:
        yield f"an item failed with {failure.code}: {failure.message}"
    if INSIDE.search(failure.message):
        yield f"the failure tells of the inside: {failure.message}"
