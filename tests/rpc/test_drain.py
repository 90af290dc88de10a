"""A server that is told to stop loses no call that it could have ended."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from tests.rpc.scripted import CLASSIFY, config, request, serving


async def test_calls_in_flight_end_well() -> None:
    async with serving(config(server={"drain_s": 5})) as running:
        calls = [asyncio.ensure_future(running.classify.Classify(request("wait 0.5"))) for _ in range(20)]
        while len(running.script.begun) < len(calls):
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await running.stop()
        assert time.perf_counter() - began < 4
        await asyncio.gather(*calls)
        await running.settle(CLASSIFY)
        assert running.count(CLASSIFY, "OK") == len(calls)


async def test_idle_server_stops_at_once_beside_a_watcher() -> None:
    async with serving(config(server={"drain_s": 30})) as running:
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        began = time.perf_counter()
        await running.stop()
        assert time.perf_counter() - began < 2


async def test_calls_that_outlive_the_drain_are_told_to_go_elsewhere() -> None:
    async with serving(config(server={"drain_s": 0.3})) as running:
        call = running.classify.Classify(request("sleep"))
        while not running.script.begun:
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await running.stop()
        assert time.perf_counter() - began < 0.3 + 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the server is stopping"
        assert running.count(CLASSIFY, "UNAVAILABLE") == 1


async def test_notice_comes_before_the_door_shuts() -> None:
    async with serving(config(server={"drain_s": 5, "drain_notice_s": 1})) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        stop = asyncio.create_task(running.stop())
        await asyncio.sleep(0.1)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        await running.classify.Classify(request("ok"))
        await stop
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.classify.Classify(request("ok"), timeout=2)
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
