"""Streams opened and cancelled by the thousand leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc.aio

from iguana.v1 import attack_pb2, attack_pb2_grpc, classify_pb2, classify_pb2_grpc
from tests.soak.contract import RPCS, attack
from tests.soak.figures import Figures
from tests.soak.scale import SCALE
from tests.soak.served import Served

AT_ONCE = 50
GROWTH = 5_000_000  # bytes
_STORMS = 4  # at most
CONNECTIONS = 2
NOTE = "storm of cancelled streams"


async def _storm(served: Served, n: int, figures: Figures) -> None:
    """Open n streams of three kinds; cancel a third at once, a third after a moment, a third after an answer."""
    channels = [
        grpc.aio.insecure_channel(served.address, options=(("grpc.channel_id", i),))
        for i in range(CONNECTIONS)
    ]
    request = attack("pgd", 2, stop_on=attack_pb2.STOP_ON_NEVER)
    request.pgd.steps[:] = [64]
    looked: Any = RPCS[0].good[0]
    watch = attack_pb2.WatchAttackRequest(request=request)
    look = classify_pb2.StreamClassifyRequest(id="a", request=looked)
    forge = attack_pb2.StreamAttackRequest(id="a", request=request)
    numbers = iter(range(n))

    async def each(message: Any) -> Any:
        yield message

    async def work(channel: grpc.aio.Channel) -> None:
        attacks = attack_pb2_grpc.AttackServiceStub(channel)
        classify = classify_pb2_grpc.ClassifyServiceStub(channel)
        begin: tuple[Callable[[], Any], ...] = (
            lambda: attacks.WatchAttack(watch),
            lambda: classify.StreamClassify(each(look)),
            lambda: attacks.StreamAttack(each(forge)),
        )
        for number in numbers:
            call = begin[number % 3]()
            if number % 9 < 3:
                await asyncio.sleep(0)
            elif number % 9 < 6 or number % 3 == 2:
                await asyncio.sleep(0.01)
            else:
                with contextlib.suppress(grpc.aio.AioRpcError):  # refused: the queue is full
                    await call.read()
            call.cancel()
            await call.code()
            figures.tell(NOTE, number, n)

    async with asyncio.TaskGroup() as group:
        for channel in channels:
            for _ in range(AT_ONCE // CONNECTIONS):
                group.create_task(work(channel))
    for channel in channels:
        await channel.close()


async def test_cancelled_streams_leave_nothing_behind(served: Served, figures: Figures) -> None:
    """After a storm to warm up, another of the same size finds the memory that it needs.

    The allocator may still settle in the second; what leaks grows in the third as well.
    """
    seen: list[tuple[int, int]] = []
    while len(seen) < 2 or (len(seen) < _STORMS and seen[-1][0] - seen[-2][0] > GROWTH):
        await _storm(served, SCALE.storm, figures)
        gauges = await asyncio.to_thread(served.rest)
        assert not any(gauges.values())
        await asyncio.sleep(1)  # for connections to close
        seen.append((served.resident(), served.open_files()))
    (warm, files), (after, files_after) = seen[-2:]
    figures.note(
        f"{NOTE}: {SCALE.storm}, after as many",
        f"{(after - warm) / 1e6:+.2f} MB, {files_after - files:+d} files",
        "5 MB, 0",
    )
    served.check_sound()
    assert after - warm <= GROWTH
    assert files_after <= files
