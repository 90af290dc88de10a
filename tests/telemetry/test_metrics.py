"""/metrics counts what happened, says it as Prometheus wants it, and cannot be made to grow."""

from __future__ import annotations

import asyncio
import gc
import urllib.request

import grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from iguana_server.config import Telemetry as Settings
from iguana_server.engine.meter import Meter, Silent
from iguana_server.rpc.server import methods
from iguana_server.telemetry import Telemetry
from tests.rpc.scripted import CLASSIFY
from tests.telemetry.promtool import promtool

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def _telemetry() -> Telemetry:
    telemetry = Telemetry(Settings(), methods=methods())
    telemetry.model_loaded("net", "ab" * 32, "cpu", 1.5)
    return telemetry


def _work(meter: Meter) -> None:
    meter.waited(CLASSIFY, 0.25)
    meter.step("net", "gradient", 5, 8, 0.04, [])
    meter.step("net", "forward", 3, 3, 0.02, [])
    meter.lane("net", "pgd", 7)
    meter.queue(1000)
    meter.refused(CLASSIFY, "QUEUE_FULL")
    meter.cancelled("queued")
    meter.finished("pgd", "fooled")
    meter.beat()


def _value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def _series(telemetry: Telemetry) -> int:
    return sum(len(family.samples) for family in telemetry.registry.collect())


async def _scrape(telemetry: Telemetry, accept: str = "text/plain") -> bytes:
    asked = urllib.request.Request(f"http://127.0.0.1:{telemetry.port}/metrics", headers={"Accept": accept})

    def get() -> bytes:
        with urllib.request.urlopen(asked) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body

    return await asyncio.to_thread(get)


def test_every_sign_of_the_engine_is_counted() -> None:
    telemetry = _telemetry()
    _work(telemetry)
    assert _value(telemetry, "iguana_queue_wait_seconds_sum", method=CLASSIFY) == 0.25
    assert _value(telemetry, "iguana_step_duration_seconds_sum", model="net", **{"pass": "gradient"}) == 0.04
    assert _value(telemetry, "iguana_step_rows_sum", model="net", **{"pass": "gradient"}) == 5
    assert _value(telemetry, "iguana_step_padding_rows_total", model="net") == 3
    assert _value(telemetry, "iguana_forward_total", model="net") == 8
    assert _value(telemetry, "iguana_backward_total", model="net") == 5
    assert _value(telemetry, "iguana_lane_rows", model="net", attack="pgd") == 7
    assert _value(telemetry, "iguana_queue_cost") == 1000
    assert _value(telemetry, "iguana_refused_total", method=CLASSIFY, reason="QUEUE_FULL") == 1
    assert _value(telemetry, "iguana_cancelled_total", phase="queued") == 1
    assert _value(telemetry, "iguana_samples_total", attack="pgd", outcome="fooled") == 1
    assert _value(telemetry, "iguana_model_info", model="net", sha256="ab" * 32, device="cpu") == 1
    assert _value(telemetry, "iguana_model_load_seconds", model="net") == 1.5
    beat = _value(telemetry, "iguana_engine_heartbeat_timestamp_seconds")
    assert beat is not None
    assert beat > 1.7e9


def test_silent_meter_takes_all_that_telemetry_takes() -> None:
    _work(Silent())


@settings(max_examples=30, deadline=None)
@given(names=st.lists(st.text(), min_size=50, max_size=50))
def test_strange_names_make_no_series(names: list[str]) -> None:
    telemetry = _telemetry()
    _work(telemetry)

    def strange(name: str) -> None:
        with telemetry.call(name, [("traceparent", name)]):
            telemetry.waited(name, 1)
            telemetry.step(name, "gradient", 1, 1, 1, [])

    strange("the first makes the series of _other")
    before = _series(telemetry)
    for name in names:
        strange(name)
    assert _series(telemetry) == before


def test_series_stay_few_when_everything_has_happened() -> None:
    telemetry = _telemetry()
    codes = (
        "OK INVALID_ARGUMENT NOT_FOUND RESOURCE_EXHAUSTED DEADLINE_EXCEEDED CANCELLED UNAVAILABLE INTERNAL"
    )
    for method in [m for m in methods() if m.startswith("iguana.")]:
        for code in codes.split():
            with telemetry.call(method, ()) as observation:
                observation.code = grpc.StatusCode[code].name
        telemetry.waited(method, 1)
    _work(telemetry)
    assert _series(telemetry) <= 3000


async def test_metrics_please_promtool() -> None:
    async with _telemetry() as telemetry:
        _work(telemetry)
        with telemetry.call(CLASSIFY, ()):
            gc.collect()
        await asyncio.sleep(0.3)
        text = await _scrape(telemetry)
        assert await asyncio.to_thread(promtool, "check", "metrics", stdin=text) == ""


async def test_pauses_are_measured() -> None:
    async with _telemetry() as telemetry:
        before = _value(telemetry, "iguana_gc_pause_seconds_count") or 0
        gc.collect()
        assert (_value(telemetry, "iguana_gc_pause_seconds_count") or 0) > before
        await asyncio.sleep(0.15)
        async with asyncio.timeout(5):
            while (_value(telemetry, "iguana_event_loop_lag_seconds_count") or 0) < 2:
                await asyncio.sleep(0.05)
        blocked = asyncio.get_running_loop().time() + 0.4
        while asyncio.get_running_loop().time() < blocked:
            pass
        await asyncio.sleep(0.15)
        lag = _value(telemetry, "iguana_event_loop_lag_seconds_sum")
        assert lag is not None
        assert lag > 0.25
    count = _value(telemetry, "iguana_gc_pause_seconds_count")
    gc.collect()
    assert _value(telemetry, "iguana_gc_pause_seconds_count") == count


async def test_open_metrics_is_answered_to_who_asks() -> None:
    async with _telemetry() as telemetry:
        assert (await _scrape(telemetry, OPEN_METRICS)).endswith(b"# EOF\n")
        assert b"# EOF" not in await _scrape(telemetry)


async def test_port_of_metrics_is_free_again_after_the_end() -> None:
    async with _telemetry() as telemetry:
        port = telemetry.port
    async with Telemetry(Settings(), methods=[], port=port) as again:
        assert again.port == port
