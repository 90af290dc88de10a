"""A real server whose servicers do what the request's model field says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc.aio

from iguana.v1 import attack_pb2, attack_pb2_grpc, classify_pb2, classify_pb2_grpc
from iguana_server import errors
from iguana_server.config import Config
from iguana_server.rpc.call import Call
from iguana_server.rpc.context import Context
from iguana_server.rpc.server import Server, methods
from iguana_server.telemetry import Telemetry

CLASSIFY = "iguana.v1.ClassifyService/Classify"
STREAM = "iguana.v1.ClassifyService/StreamClassify"
WATCH = "iguana.v1.AttackService/WatchAttack"

FAULTS: dict[str, Callable[[], Exception]] = {
    "INVALID_ARGUMENT": lambda: errors.InvalidArgument("images", "want 1 to 256, got 0"),
    "NOT_FOUND": lambda: errors.NotFound("model", "resnot", ["resnet"]),
    "RESOURCE_EXHAUSTED": lambda: errors.Overloaded("queue: full", 1.5),
    "DEADLINE_EXCEEDED": lambda: errors.DeadlineExceeded("deadline: passed"),
    "UNAVAILABLE": lambda: errors.Unavailable("the server is stopping"),
    "INTERNAL": lambda: ZeroDivisionError("secret /etc/path"),
}


@dataclass
class Scripted:
    """What happened in the servicers, and the engine's end."""

    begun: list[Call] = field(default_factory=list)
    cancelled: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, script: str) -> None:
        """Do what the script says: a code's name fails with it, "sleep" waits for the caller's end."""
        self.begun.append(Call.current())
        if script in FAULTS:
            raise FAULTS[script]()
        if script == "sleep":
            try:
                await asyncio.wait_for(self.stopping.wait(), 60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            raise errors.Unavailable("the server is stopping")
        if script.startswith("wait "):
            await asyncio.sleep(float(script.removeprefix("wait ")))

    async def stop(self) -> None:
        """End the sleepers, as the engine does."""
        self.stopping.set()


class ClassifyServicer(classify_pb2_grpc.ClassifyServiceServicer):
    """Unary and stream-stream."""

    def __init__(self, script: Scripted) -> None:
        self._script = script

    async def Classify(  # noqa: N802
        self,
        request: classify_pb2.ClassifyRequest,
        context: Context,
    ) -> classify_pb2.ClassifyResponse:
        await self._script.act(request.model)
        return classify_pb2.ClassifyResponse()

    async def StreamClassify(  # noqa: N802
        self,
        request_iterator: AsyncIterator[classify_pb2.StreamClassifyRequest],
        context: Context,
    ) -> AsyncIterator[classify_pb2.StreamClassifyResponse]:
        async for item in request_iterator:
            await self._script.act(item.request.model)
            yield classify_pb2.StreamClassifyResponse(id=item.id)


class AttackServicer(attack_pb2_grpc.AttackServiceServicer):
    """Unary-stream: "flood" sends 1 MB messages as long as they are taken."""

    Attack = StreamAttack = AttackRemote = None  # type: ignore[assignment]  # not called here

    def __init__(self, script: Scripted) -> None:
        self._script = script

    async def WatchAttack(  # noqa: N802
        self,
        request: attack_pb2.WatchAttackRequest,
        context: Context,
    ) -> AsyncIterator[attack_pb2.WatchAttackResponse]:
        await self._script.act(request.request.model)
        big = attack_pb2.AttackResult()
        big.image.encoded = bytes(1_000_000)
        for _ in range(500 if request.request.model == "flood" else 3):
            yield attack_pb2.WatchAttackResponse(result=big)


@dataclass
class Running:
    """A server under test."""

    server: Server
    telemetry: Telemetry
    script: Scripted
    channel: grpc.aio.Channel
    classify: classify_pb2_grpc.ClassifyServiceAsyncStub
    attack: attack_pb2_grpc.AttackServiceAsyncStub
    stop: Callable[[], Coroutine[None, None, None]]

    def raw(self, method: str, shape: str = "unary_unary") -> Any:
        """Return the method as a function of bytes."""
        return getattr(self.channel, shape)(f"/{method}")

    def value(self, name: str, **labels: str) -> float:
        """Return a sample of the metrics, 0 if there is none."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0

    def count(self, method: str, code: str) -> float:
        """Return how many calls of the method ended with the code."""
        return self.value("iguana_rpc_server_duration_seconds_count", method=method, code=code)

    async def settle(self, method: str) -> None:
        """Wait until no call of the method runs."""
        async with asyncio.timeout(5):
            while self.value("iguana_rpc_in_flight", method=method):
                await asyncio.sleep(0.005)


def config(**groups: dict[str, object]) -> Config:
    """Return settings for a test: any port, no notice."""
    server: dict[str, object] = {"port": 0, "metrics_port": 0, "drain_notice_s": 0}
    given = {**groups, "server": server | groups.get("server", {})}
    return Config.load(
        flags={f"{group}.{name}": value for group, t in given.items() for name, value in t.items()}
    )


@asynccontextmanager
async def serving(settings: Config | None = None) -> AsyncIterator[Running]:
    """Serve the scripted servicers until the end of the block."""
    settings = settings or config()
    script = Scripted()
    async with Telemetry(settings.telemetry, methods=methods()) as telemetry:
        server = Server(
            settings,
            telemetry,
            (
                partial(classify_pb2_grpc.add_ClassifyServiceServicer_to_server, ClassifyServicer(script)),
                partial(attack_pb2_grpc.add_AttackServiceServicer_to_server, AttackServicer(script)),
            ),
        )
        await server.start()
        stopped = False

        async def stop() -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                await server.stop(script.stop)

        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield Running(
                    server,
                    telemetry,
                    script,
                    channel,
                    classify_pb2_grpc.ClassifyServiceStub(channel),
                    attack_pb2_grpc.AttackServiceStub(channel),
                    stop,
                )
        finally:
            await script.stop()
            await stop()


def request(script: str = "ok") -> classify_pb2.ClassifyRequest:
    """Return a request that makes the servicer do this."""
    return classify_pb2.ClassifyRequest(model=script)
