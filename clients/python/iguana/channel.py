"""The connection: one channel a client, with its limits, keepalive and retry policy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.message import Message

from iguana import retry
from iguana.errors import invalid

DEFAULT_TARGET = "127.0.0.1:7777"
MAX_SEND_BYTES = 8 << 20  # what the server takes unless it is told otherwise: server.max_message_bytes
MAX_RECEIVE_BYTES = 64 << 20  # above its server.max_reply_bytes, 48 MiB unless it is told otherwise
MOST_BYTES = 1 << 30  # that either can be set to
PING_S = 20.0
PING_TIMEOUT_S = 5.0
MAX_RETRIES = 4  # gRPC makes at most 5 attempts


@dataclass(frozen=True)
class Endpoint:
    """Where the server is and how to talk to it; the arguments of `Client` and `AsyncClient`."""

    target: str
    timeout_s: float
    tls: grpc.ChannelCredentials | str | Path | None
    caller: str | None
    max_streams: int
    retries: int
    max_send_bytes: int
    max_receive_bytes: int

    def __post_init__(self) -> None:
        if not self.target:
            raise invalid("target", "HOST:PORT", "''")
        check_timeout_s(self.timeout_s)
        if self.caller is not None and not (
            self.caller.isascii() and self.caller.isprintable() and self.caller
        ):
            raise invalid("caller", "printable ASCII text", repr(self.caller))
        if self.max_streams < 1:
            raise invalid("max_streams", "at least 1", self.max_streams)
        if not 0 <= self.retries <= MAX_RETRIES:
            raise invalid("retries", f"0 to {MAX_RETRIES}", self.retries)
        for name in ("max_send_bytes", "max_receive_bytes"):
            if not 1 <= getattr(self, name) <= MOST_BYTES:
                raise invalid(name, f"1 to {MOST_BYTES}", getattr(self, name))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call."""
        return () if self.caller is None else (("iguana-caller", self.caller),)

    @cached_property
    def options(self) -> tuple[tuple[str, int | str], ...]:
        """The gRPC channel arguments."""
        return (
            # A connection of its own: gRPC would share one among all clients of a process and target, and the
            # server bounds the calls of a connection.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", self.max_send_bytes),
            ("grpc.max_receive_message_length", self.max_receive_bytes),
            # A server that is gone without a word is noticed in 25 s, ping_timeout_ms being what sees one whose
            # kernel still answers; the server tolerates a ping each 5 s. Without max_pings_without_data gRPC
            # would stop after 2 pings on a call that only waits for its answer.
            ("grpc.keepalive_time_ms", round(PING_S * 1000)),
            ("grpc.keepalive_timeout_ms", round(PING_TIMEOUT_S * 1000)),
            ("grpc.http2.ping_timeout_ms", round(PING_TIMEOUT_S * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_retries", int(self.retries > 0)),
            # A request larger than this buffer (256 KiB unless told) would quietly not be retried.
            ("grpc.per_rpc_retry_buffer_size", min(2 * self.max_send_bytes, 2**31 - 1)),
            ("grpc.service_config", json.dumps(self._service_config())),
            ("grpc.service_config_disable_resolution", 1),
        )

    def _service_config(self) -> dict[str, object]:
        if self.retries == 0:
            return {}
        policy = {
            "maxAttempts": self.retries + 1,
            "initialBackoff": f"{retry.FIRST_PAUSE_S}s",
            "maxBackoff": f"{retry.LONGEST_PAUSE_S}s",
            "backoffMultiplier": 2,
            # CANCELLED: a stopping server so ends calls that it had not begun.
            "retryableStatusCodes": [code.name for code in retry.RETRYABLE],
        }
        return {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}

    def open(self) -> grpc.Channel:
        """A channel for `iguana.Client`."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(self.target, self.options)
        return grpc.secure_channel(self.target, credentials, self.options)

    def open_aio(self) -> grpc.aio.Channel:
        """A channel for `iguana.AsyncClient`, of the running event loop."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, self.options)
        return grpc.aio.secure_channel(self.target, credentials, self.options)

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if isinstance(self.tls, str | Path):
            return grpc.ssl_channel_credentials(Path(self.tls).read_bytes())
        return self.tls

    def deadline(self, timeout_s: float | None) -> retry.Deadline:
        """The deadline of a call that starts now; None means the client's own time-out."""
        if timeout_s is None:
            return retry.Deadline(self.timeout_s)
        check_timeout_s(timeout_s)
        return retry.Deadline(timeout_s)


def check_timeout_s(timeout_s: float) -> None:
    """Refuse a time-out that is not a length of time in seconds."""
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise invalid("timeout_s", "seconds above 0", timeout_s)


def check_size(request: Message, limit: int) -> None:
    """Refuse a request of more than `limit` bytes before it is sent."""
    if (size := request.ByteSize()) > limit:
        raise invalid(
            "request", f"at most max_send_bytes, {limit} (send fewer images at once)", f"{size} bytes"
        )
