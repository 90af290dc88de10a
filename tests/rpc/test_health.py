"""Health and reflection answer as the standards say, whatever the server is doing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2

from iguana_server.rpc.server import services
from tests.rpc.scripted import Running, config, request, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _health(running: Running) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(running.channel)


@pytest.mark.parametrize("service", ["", *services()])
async def test_every_service_is_serving_and_then_not(service: str) -> None:
    async with serving() as running:
        check = _health(running).Check
        asked = health_pb2.HealthCheckRequest(service=service)
        assert (await check(asked)).status == SERVING
        await running.server.set_serving(serving=False)
        assert (await check(asked)).status == NOT_SERVING
        await running.server.set_serving(serving=True)
        assert (await check(asked)).status == SERVING


async def test_unknown_service_is_not_found() -> None:
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _health(running).Check(health_pb2.HealthCheckRequest(service="nope"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_outlives_the_deadline_of_work_and_sees_the_drain() -> None:
    async with serving(config(limits={"default_deadline_s": 0.1, "max_deadline_s": 0.2})) as running:
        watch = _health(running).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await asyncio.sleep(0.4)
        stop = asyncio.create_task(running.stop())
        began = time.perf_counter()
        assert (await watch.read()).status == NOT_SERVING
        assert time.perf_counter() - began < 0.5
        await stop


async def test_draining_server_never_says_serving_again() -> None:
    async with serving(config(server={"drain_s": 5, "drain_notice_s": 0.5})) as running:
        stop = asyncio.create_task(running.stop())
        await asyncio.sleep(0.1)
        await running.server.set_serving(serving=True)
        assert (await _health(running).Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        await stop


async def test_health_is_quick_beside_many_calls() -> None:
    async with serving() as running:
        calls = [running.classify.Classify(request("sleep")) for _ in range(100)]
        while len(running.script.begun) < len(calls):
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        assert (await _health(running).Check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING
        assert time.perf_counter() - began < 0.5
        await running.script.stop()
        for call in calls:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_tells_the_contract(version: str) -> None:
    async with serving() as running:
        ask = running.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="iguana.v1.AttackService"),
        ]
        listed, file = [answer async for answer in ask(iter(questions))]
        assert set(services()) <= {service.name for service in listed.list_services_response.service}
        protos = map(FileDescriptorProto.FromString, file.file_descriptor_response.file_descriptor_proto)
        assert "iguana/v1/attack.proto" in {proto.name for proto in protos}


async def test_reflection_can_be_switched_off() -> None:
    async with serving(config(server={"reflection": False})) as running:
        ask: Any = running.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(iter([b""])).read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
