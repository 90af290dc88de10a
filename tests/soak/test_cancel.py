"""A handler hears that its caller has left, while the engine computes for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from iguana.v1 import attack_pb2, classify_pb2
from iguana_server.models import catalog
from iguana_server.rpc import interceptor
from tests.rpc import service as small
from tests.rpc.service import Service, serving
from tests.soak.contract import MODEL, attack
from tests.soak.figures import Figures, ms
from tests.soak.scale import SCALE

WITHIN_S = 0.050
LOAD = 64  # rows
LIMITS = replace(
    small.LIMITS, max_images=256, max_steps=1000, max_waiting_cost=1 << 34, max_reply_bytes=1 << 24
)
FULL = 128  # rows of one caller in flight, at most: what comes after them waits


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a handler's work came to its end, for every one; the reader of a stream may hear of it first."""
    times: list[float] = []
    within = interceptor._within

    async def noted(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await within(seconds, work)
        finally:
            times.append(time.monotonic())

    monkeypatch.setattr(interceptor, "_within", noted)
    return times


@asynccontextmanager
async def _busy(rows: int) -> AsyncIterator[Service]:
    """A server of the real model whose engine computes an attack on so many rows all the time."""
    async with serving(catalog.load(MODEL), limits=LIMITS) as service:
        load = _long(rows)
        call = service.attack.Attack(load)
        await asyncio.sleep(0.3)
        yield service
        assert not call.done()
        call.cancel()
        await call.code()


def _long(rows: int) -> attack_pb2.AttackRequest:
    request = attack("pgd", rows, stop_on=attack_pb2.STOP_ON_NEVER)
    request.pgd.steps[:] = [1000]
    return request


async def _begun(service: Service, kind: str) -> Any:
    """A call of this kind."""
    request = _long(2)
    if kind == "Attack":
        return service.attack.Attack(request)
    if kind == "WatchAttack":
        return service.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=request))
    if kind == "StreamAttack":
        call: Any = service.attack.StreamAttack()
        await call.write(attack_pb2.StreamAttackRequest(id="a", request=request))
    else:
        call = service.classify.StreamClassify()
        await call.write(classify_pb2.StreamClassifyRequest(id="a"))
    return call


@pytest.mark.parametrize("rows", [LOAD, FULL], ids=["running", "queued"])
@pytest.mark.parametrize("kind", ["Attack", "WatchAttack", "StreamAttack", "StreamClassify"])
async def test_a_handler_hears_at_once_that_its_caller_has_left(
    heard: list[float], figures: Figures, kind: str, rows: int
) -> None:
    lags = []
    async with _busy(rows) as service:
        for _ in range(SCALE.cancels):
            call = await _begun(service, kind)
            await asyncio.sleep(0.1)  # it runs, or it waits
            assert not call.done()
            n = len(heard)
            began = time.monotonic()
            call.cancel()
            async with asyncio.timeout(5):
                while len(heard) == n:
                    await asyncio.sleep(0)
            lags.append(heard[n] - began)
    state = "running" if rows == LOAD else "queued"
    figures.note(f"cancel, {kind}, {state}: p50 / p95 / p99 / max", ms(lags), "50 ms")
    assert max(lags) <= WITHIN_S
