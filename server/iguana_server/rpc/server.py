"""The gRPC server: options, interceptor, health, reflection, drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable

import grpc.aio
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from iguana.v1 import attack_pb2, classify_pb2, detect_pb2, generate_pb2, model_pb2, translate_pb2
from iguana_server.config import Config
from iguana_server.rpc import reflection
from iguana_server.rpc.health import Health
from iguana_server.rpc.interceptor import Interceptor
from iguana_server.telemetry import Telemetry, address

CONTRACT: tuple[FileDescriptor, ...] = (
    attack_pb2.DESCRIPTOR,
    classify_pb2.DESCRIPTOR,
    detect_pb2.DESCRIPTOR,
    generate_pb2.DESCRIPTOR,
    model_pb2.DESCRIPTOR,
    translate_pb2.DESCRIPTOR,
)
LAST_S = 2.0  # for the calls that outlive the drain to be told so

_log = logging.getLogger(__name__)


def services() -> list[str]:
    """Return the full names of the contract's services."""
    return [service.full_name for service in _described(CONTRACT)]


def methods() -> list[str]:
    """Return the full names of all RPCs served, health and reflection among them."""
    described = _described((*CONTRACT, health_pb2.DESCRIPTOR))
    names = [f"{service.full_name}/{method.name}" for service in described for method in service.methods]
    return [*names, *(f"{service}/ServerReflectionInfo" for service in (reflection.V1, reflection.V1ALPHA))]


class Server:
    """A gRPC server that takes calls from `start` to `stop`.

    `add` are the generated functions that register a servicer, each bound to its servicer.
    """

    def __init__(
        self, config: Config, telemetry: Telemetry, add: Iterable[Callable[[grpc.aio.Server], None]]
    ) -> None:
        """Make the server; the port opens with `start`."""
        self._settings = config.server
        self._interceptor = Interceptor(telemetry, config.limits)
        self._health = Health(services())
        self._server = grpc.aio.server(interceptors=(self._interceptor,), options=_options(config))
        for register in add:
            register(self._server)
        self._health.add_to(self._server)
        if config.server.reflection:
            health = [service.full_name for service in _described((health_pb2.DESCRIPTOR,))]
            reflection.add_reflection(self._server, [*services(), *health])
        self.port = config.server.port

    async def start(self) -> None:
        """Open the port and say SERVING. Raises OSError, with the setting's name, where it cannot."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        try:
            self.port = self._server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as error:
            reason = address.reason(self._settings.host, self.port) or error
            raise address.refusal("server.port", self._settings.host, self.port, reason) from error
        await self.set_serving(serving=True)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell balancers to come, or to go elsewhere; calls are taken all the same. No effect from `stop` on."""
        await self._health.set(serving=serving)

    async def stop(self, fail_rest: Callable[[], Awaitable[object]]) -> None:
        """Drain: NOT_SERVING, a notice, no new calls; wait for those in flight, at most drain_s in all.

        Then `fail_rest` must make those that are left end (the engine tells them Unavailable), and the rest
        (watchers of health) are told the same.
        """
        until = time.monotonic() + self._settings.drain_s
        await self._health.leave()
        await asyncio.sleep(self._settings.drain_notice_s)
        left = until - time.monotonic()
        stopping = asyncio.create_task(self._server.stop(max(0.0, left) + 2 * LAST_S))
        ended = await self._interceptor.drain(left)
        await fail_rest()
        if not ended:
            _log.warning("calls outlived the drain", extra={"drain_s": self._settings.drain_s})
            await self._interceptor.drain(LAST_S)
        self._interceptor.close()
        await stopping


def _described(files: Collection[FileDescriptor]) -> list[ServiceDescriptor]:
    return [service for file in files for service in file.services_by_name.values()]


def _options(config: Config) -> list[tuple[str, int]]:
    """Return the options. No maximum_concurrent_rpcs: it would refuse health checks; admission is ours."""
    server = config.server
    return [
        ("grpc.max_receive_message_length", server.max_message_bytes),
        ("grpc.max_send_message_length", server.max_reply_bytes),
        ("grpc.max_concurrent_streams", server.max_connection_streams),
        ("grpc.max_metadata_size", server.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * server.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _ms(server.handshake_timeout_s)),
        ("grpc.keepalive_time_ms", _ms(server.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(server.keepalive_timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(server.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(server.min_ping_interval_s)),
        ("grpc.max_connection_idle_ms", _ms(server.max_connection_idle_s)),
        ("grpc.max_connection_age_ms", _ms(server.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(config.limits.max_deadline_s)),  # no call is cut by age
        ("grpc.so_reuseport", 0),  # one process owns the device: a second on the same port is a mistake
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
