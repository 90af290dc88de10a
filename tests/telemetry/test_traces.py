"""Each call is one span with the right status, under its caller's, linked with the passes it was in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import grpc.aio
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from iguana_server.config import Telemetry as Settings
from iguana_server.telemetry import Telemetry
from tests.rpc.scripted import CLASSIFY, FAULTS, config, request, serving
from tests.telemetry.collector import Collector, attributes, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FAILED = {"DEADLINE_EXCEEDED", "UNAVAILABLE", "INTERNAL"}  # of those the servicers here answer


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as it:
        yield it


def _settings(collector: Collector, **changes: object) -> dict[str, object]:
    return {"otlp_endpoint": collector.endpoint, "sample_ratio": 1.0, **changes}


async def test_every_call_is_one_span_under_its_callers(collector: Collector) -> None:
    scripts = ["ok", *FAULTS, "cancel", "late"]
    async with serving(config(telemetry=_settings(collector))) as running:
        for n, script in enumerate(scripts):
            metadata = (("traceparent", f"00-{n:032x}-{PARENT}-01"),) if n else ()
            call = running.classify.Classify(
                request("sleep" if script in {"cancel", "late"} else script),
                metadata=metadata,
                timeout=0.3 if script == "late" else 30,
            )
            if script == "cancel":
                while len(running.script.begun) <= n:
                    await asyncio.sleep(0.005)
                call.cancel()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await call
            await running.settle(CLASSIFY)
    wanted = ["OK", *FAULTS, "CANCELLED", "DEADLINE_EXCEEDED"]
    spans = collector.named(CLASSIFY)
    assert [attributes(span)["rpc.response.status_code"] for span in spans] == wanted
    assert not spans[0].parent_span_id
    for n, span in enumerate(spans[1:], 1):
        assert span.trace_id.hex() == f"{n:032x}"
        assert span.parent_span_id.hex() == PARENT
    for span, code in zip(spans, wanted, strict=True):
        assert span.kind == Span.SPAN_KIND_SERVER
        assert attributes(span)["rpc.system.name"] == "grpc"
        assert attributes(span)["rpc.method"] == CLASSIFY
        assert (span.status.code == Status.STATUS_CODE_ERROR) == (code in FAILED)
        assert attributes(span).get("error.type") == (code if code in FAILED else None)
        assert not span.events  # an exception's text stays in the log


async def test_garbage_and_unknown_methods_are_spans_too(collector: Collector) -> None:
    async with serving(config(telemetry=_settings(collector))) as running:
        for method in (CLASSIFY, "a.B/C"):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await running.raw(method)(b"\xff")
    codes = {span.name: attributes(span)["rpc.response.status_code"] for span in collector.spans}
    assert codes == {CLASSIFY: "INVALID_ARGUMENT", "a.B/C": "UNIMPLEMENTED"}


async def test_passes_and_calls_are_linked_both_ways(collector: Collector) -> None:
    settings = Settings.model_validate(_settings(collector))
    async with Telemetry(settings, methods=[CLASSIFY]) as telemetry:
        stack = contextlib.ExitStack()
        spans = []
        for _ in range(3):
            stack.enter_context(telemetry.call(CLASSIFY, ()))
            spans.append(telemetry.current_span())
        for turn in range(5):
            await asyncio.to_thread(telemetry.step, "net", "gradient", 4, 8, 0.05, spans[: 1 + turn % 3])
        await asyncio.to_thread(telemetry.step, "net", "forward", 4, 8, 0.05, [*spans, *spans, None])
        await asyncio.to_thread(telemetry.step, "net", "forward", 4, 8, 0.05, [None])
        stack.close()
    steps, calls = collector.named("iguana.step"), collector.named(CLASSIFY)
    assert (len(steps), len(calls)) == (6, 3)
    by_id = {span.span_id: span for span in collector.spans}
    assert [len(step.links) for step in sorted(steps, key=lambda s: s.end_time_unix_nano)] == [
        1,
        2,
        3,
        1,
        2,
        3,
    ]
    for step in steps:
        assert not step.parent_span_id
        assert {by_id[link.span_id].name for link in step.links} == {CLASSIFY}
        assert (step.end_time_unix_nano - step.start_time_unix_nano) / 1e9 == pytest.approx(0.05, abs=1e-6)
        assert attributes(step)["iguana.rows"] == 4
        assert attributes(step)["iguana.rows_padded"] == 8
    seen = sorted(attributes(call)["iguana.passes.gradient"] for call in calls)
    assert seen == [1, 3, 5]
    for call in calls:
        assert [attributes(link)["iguana.step"] for link in call.links] == ["first", "last"]
        assert all(by_id[link.span_id].name == "iguana.step" for link in call.links)


async def test_a_pass_of_many_calls_keeps_to_the_limit_of_links(collector: Collector) -> None:
    settings = Settings.model_validate(_settings(collector))
    async with Telemetry(settings, methods=[CLASSIFY]) as telemetry:
        with contextlib.ExitStack() as stack:
            spans = []
            for _ in range(200):
                stack.enter_context(telemetry.call(CLASSIFY, ()))
                spans.append(telemetry.current_span())
            telemetry.step("net", "forward", 200, 200, 0.05, spans)
    (step,) = collector.named("iguana.step")
    assert len(step.links) == 128
    assert step.dropped_links_count == 0
    assert attributes(step)["iguana.traced_calls"] == 200


async def test_caller_decides_on_sampling(collector: Collector) -> None:
    settings = Settings.model_validate(_settings(collector, sample_ratio=0))
    async with Telemetry(settings, methods=[CLASSIFY]) as telemetry:
        with telemetry.call(CLASSIFY, ()):
            assert telemetry.current_span() is None
        with telemetry.call(CLASSIFY, [("traceparent", f"00-{TRACE}-{PARENT}-01")]):
            span = telemetry.current_span()
            assert telemetry.current_trace_id() == TRACE
            telemetry.step("net", "forward", 1, 1, 0.01, [span])
        for strange in ("", "00-xyz", "ff" * 500, f"00-{'0' * 32}-{'0' * 16}-01"):
            with telemetry.call(CLASSIFY, [("traceparent", strange)]):
                assert telemetry.current_span() is None
    assert len(collector.spans) == 2


async def test_latency_carries_the_trace_as_exemplar(collector: Collector) -> None:
    settings = Settings.model_validate(_settings(collector))
    async with Telemetry(settings, methods=[CLASSIFY]) as telemetry:
        with telemetry.call(CLASSIFY, [("traceparent", f"00-{TRACE}-{PARENT}-01")]):
            pass
        exemplars = [s.exemplar for f in telemetry.registry.collect() for s in f.samples if s.exemplar]
        assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": TRACE}]


async def test_without_a_collector_nothing_is_traced() -> None:
    async with Telemetry(Settings(), methods=[CLASSIFY]) as telemetry:
        with telemetry.call(CLASSIFY, [("traceparent", f"00-{TRACE}-{PARENT}-01")]):
            assert telemetry.current_span() is None
        began = time.perf_counter()
        for _ in range(1000):
            with telemetry.call(CLASSIFY, ()):
                pass
        assert time.perf_counter() - began < 0.5  # 10 us each when idle


@pytest.mark.parametrize("state", ["dead", "hung"])
async def test_lost_spans_are_counted_and_the_end_is_not_held_up(collector: Collector, state: str) -> None:
    collector.hang.set()
    endpoint = collector.endpoint if state == "hung" else "http://127.0.0.1:9"
    async with serving(config(telemetry=_settings(collector, otlp_endpoint=endpoint))) as running:
        for _ in range(20):
            await running.classify.Classify(request("ok"))
        telemetry = running.telemetry
        await running.stop()
        began = time.perf_counter()
    assert time.perf_counter() - began < 6
    assert telemetry.registry.get_sample_value("iguana_spans_dropped_total") == 20


async def test_full_queue_drops_and_counts(collector: Collector) -> None:
    collector.hang.set()
    settings = Settings.model_validate(_settings(collector))
    async with Telemetry(settings, methods=[CLASSIFY]) as telemetry:
        for _ in range(3000):
            with telemetry.call(CLASSIFY, ()):
                pass
        dropped = telemetry.registry.get_sample_value("iguana_spans_dropped_total")
        assert dropped is not None
        assert dropped >= 3000 - 2048
        collector.hang.clear()
    assert (
        len(collector.spans) + (telemetry.registry.get_sample_value("iguana_spans_dropped_total") or 0)
        >= 3000
    )
