"""Whatever happens in a call, the caller gets the right status and the server counts it once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iguana.v1 import attack_pb2, classify_pb2
from iguana_server.rpc.interceptor import Interceptor
from iguana_server.telemetry import Telemetry
from tests.rpc.scripted import CLASSIFY, FAULTS, STREAM, WATCH, Running, config, request, serving

ALL_METHODS = (CLASSIFY, STREAM, WATCH)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as it:
        yield it


def _call(running: Running, method: str, script: str, timeout: float | None = None) -> grpc.aio.Call:
    """Begin a call of any shape."""
    if method == CLASSIFY:
        return running.classify.Classify(request(script), timeout=timeout)
    if method == STREAM:
        item = classify_pb2.StreamClassifyRequest(id="a", request=request(script))
        return running.classify.StreamClassify(iter([item]), timeout=timeout)
    watch = attack_pb2.WatchAttackRequest(request=attack_pb2.AttackRequest(model=script))
    return running.attack.WatchAttack(watch, timeout=timeout)


async def _end(call: grpc.aio.Call) -> grpc.StatusCode:
    """Read a call to its end."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
    else:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in call:  # type: ignore[attr-defined]
                pass
    return await call.code()


async def _reason(call: grpc.aio.Call) -> str:
    details = dict(await call.trailing_metadata())["grpc-status-details-bin"]
    answer = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert answer.details[0].Unpack(info)
    return str(info.reason).removeprefix("ERROR_REASON_")


@pytest.mark.parametrize("method", ALL_METHODS)
async def test_good_call_is_ok(running: Running, method: str) -> None:
    assert await _end(_call(running, method, "ok")) is grpc.StatusCode.OK
    await running.settle(method)
    assert running.count(method, "OK") == 1


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("code", sorted(FAULTS))
async def test_error_of_a_servicer_is_the_callers_status(running: Running, method: str, code: str) -> None:
    call = _call(running, method, code)
    assert (await _end(call)).name == code
    assert await _reason(call) != "UNSPECIFIED"
    await running.settle(method)
    assert running.count(method, code) == 1


async def test_defect_leaves_no_trace_at_the_caller(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    call = _call(running, CLASSIFY, "INTERNAL")
    assert await _end(call) is grpc.StatusCode.INTERNAL
    text = await call.details()
    assert text.startswith("internal error, id=")
    logged = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [r.__dict__["id"] for r in logged] == [text.removeprefix("internal error, id=")]


@pytest.mark.parametrize("method", ALL_METHODS)
async def test_garbage_is_refused_as_malformed(running: Running, method: str) -> None:
    call: Any
    if method == STREAM:
        call = running.raw(method, "stream_stream")(iter([b"\xff\xff\xff"]))
    else:
        call = running.raw(method, "unary_unary" if method == CLASSIFY else "unary_stream")(b"\xff\xff\xff")
    assert await _end(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert await _reason(call) == "MALFORMED_BODY"
    assert not running.script.begun


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(st.binary(max_size=200), min_size=40, max_size=100))
def test_no_body_makes_an_unknown_or_internal(bodies: list[bytes]) -> None:
    async def send() -> set[grpc.StatusCode]:
        async with serving() as running:
            method = running.raw(CLASSIFY)
            return set(await asyncio.gather(*(_end(method(body)) for body in bodies)))

    assert asyncio.run(send()) <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize("method", ALL_METHODS)
async def test_callers_deadline_ends_the_servicer(running: Running, method: str) -> None:
    assert await _end(_call(running, method, "sleep", timeout=0.2)) is grpc.StatusCode.DEADLINE_EXCEEDED
    await running.settle(method)
    assert running.script.cancelled == 1
    assert running.count(method, "DEADLINE_EXCEEDED") == 1


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("timeout_s", [None, 30.0])
async def test_call_without_a_deadline_or_with_too_long_a_one_is_bounded(
    method: str, timeout_s: float | None
) -> None:
    limits: dict[str, object] = {"default_deadline_s": 0.2, "max_deadline_s": 0.3}
    async with serving(config(limits=limits)) as running:
        call = _call(running, method, "sleep", timeout_s)
        assert await _end(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await _reason(call) == "DEADLINE"
        await running.settle(method)
        assert running.script.cancelled == 1
        assert running.count(method, "DEADLINE_EXCEEDED") == 1
        left = running.script.begun[0].deadline - time.monotonic()
        assert -1 < left <= 0


class _LateContext:
    """A call whose deadline passed on the way: grpc begins its handler all the same."""

    status: grpc.Status | None = None

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> float:
        return 0.0

    async def abort_with_status(self, status: grpc.Status) -> None:
        self.status = status
        raise grpc.aio.AbortError


async def test_call_that_arrives_late_is_not_begun() -> None:
    begun = []

    async def servicer(request: classify_pb2.ClassifyRequest, _: object) -> None:
        begun.append(request)

    async def find(_: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(servicer)

    telemetry = Telemetry(config().telemetry, methods=[CLASSIFY])
    details: Any = SimpleNamespace(method=f"/{CLASSIFY}")
    handler: Any = await Interceptor(telemetry, config().limits).intercept_service(find, details)
    context = _LateContext()
    with pytest.raises(grpc.aio.AbortError):
        await handler.unary_unary(b"", context)
    assert context.status is not None
    assert context.status.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not begun
    labels = {"method": CLASSIFY, "code": "DEADLINE_EXCEEDED"}
    assert telemetry.registry.get_sample_value("iguana_rpc_server_duration_seconds_count", labels) == 1


@pytest.mark.parametrize("method", ALL_METHODS)
async def test_cancelled_call_ends_at_once(running: Running, method: str) -> None:
    call = _call(running, method, "sleep")
    reader = asyncio.create_task(_end(call))
    while not running.script.begun:
        await asyncio.sleep(0.005)
    began = time.perf_counter()
    call.cancel()
    await running.settle(method)
    assert time.perf_counter() - began < 1  # 0.7 ms when idle; the machine may be busy
    assert running.script.cancelled == 1
    assert running.count(method, "CANCELLED") == 1
    with contextlib.suppress(asyncio.CancelledError):
        await reader


@pytest.mark.parametrize("method", [CLASSIFY, WATCH])
@pytest.mark.parametrize("leave", ["cancels", "is late"])
async def test_call_given_up_before_its_request_arrived_is_counted(
    running: Running, method: str, leave: str
) -> None:
    # A stream to a unary method: its headers are sent, a request is not.
    call = running.raw(method, "stream_stream")(timeout=0.2 if leave == "is late" else None)
    if leave == "cancels":
        await asyncio.sleep(0.2)
        call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await _end(call)
    async with asyncio.timeout(5):
        while not running.count(method, "CANCELLED"):
            await asyncio.sleep(0.005)
    assert not running.script.begun
    assert running.count(method, "CANCELLED") == 1
    assert not running.value("iguana_rpc_in_flight", method=method)


async def test_slow_reader_is_cut_off_at_the_deadline() -> None:
    async with serving(config(limits={"default_deadline_s": 0.5, "max_deadline_s": 1})) as running:
        call = _call(running, WATCH, "flood")
        while not running.script.begun:
            await asyncio.sleep(0.005)
        await running.settle(WATCH)  # nobody has read: the servicer was blocked in its write
        assert running.count(WATCH, "DEADLINE_EXCEEDED") == 1
        assert running.script.begun[0].remaining() == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # who reads on, learns why it ended
            async for _ in call:  # type: ignore[attr-defined]
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_unknown_method_is_counted_under_one_name(running: Running) -> None:
    for name in ("iguana.v1.ClassifyService/Nope", "a/b", 'x/"},{'):
        call = running.raw(name)(b"")
        assert await _end(call) is grpc.StatusCode.UNIMPLEMENTED
    await running.settle("_other")
    assert running.count("_other", "UNIMPLEMENTED") == 3


async def test_servicer_knows_its_call(running: Running) -> None:
    await _end(_call(running, CLASSIFY, "ok", timeout=5))
    (call,) = running.script.begun
    assert call.method == CLASSIFY
    assert 0 < call.remaining() <= 5.1  # gRPC rounds a timeout up on its way
    assert call.span is None


async def test_every_call_is_counted_once(running: Running) -> None:
    scripts = [*FAULTS, "ok", "ok", "sleep", "wait 0.01"] * 10
    for method in ALL_METHODS:
        calls = [_call(running, method, script, timeout=2 if script == "sleep" else 30) for script in scripts]
        seen = await asyncio.gather(*map(_end, calls))
        await running.settle(method)
        counted = {code.name: int(running.count(method, code.name)) for code in grpc.StatusCode}
        assert {code: n for code, n in counted.items() if n} == Counter(code.name for code in seen)


async def test_cancel_storm_leaves_nothing_behind(running: Running) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(10):
        calls = [_call(running, CLASSIFY, "sleep") for _ in range(50)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
    await running.settle(CLASSIFY)
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) <= before + 4  # grpc's own, of the one connection
    assert await _end(_call(running, CLASSIFY, "ok")) is grpc.StatusCode.OK
