"""Telemetry: the one listener of the server, for calls and for the engine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from iguana_server import config
from iguana_server.telemetry import address
from iguana_server.telemetry.metrics import Metrics
from iguana_server.telemetry.pauses import Collections, watch_loop

if TYPE_CHECKING:
    from iguana_server.telemetry.traces import RequestSpan, Tracer

_span: ContextVar[RequestSpan | None] = ContextVar("span", default=None)


class Observation:
    """One call being observed; set `code` to the name of the gRPC status it ends with."""

    code = "OK"


class Telemetry:
    """Metrics of its own registry behind /metrics, traces if a collector is set; the engine's Meter.

    Use it as an async context manager: it serves /metrics and watches the event loop from enter to exit, and
    sends the last spans on exit. `methods` are the full names of the RPCs served.
    """

    def __init__(
        self, settings: config.Telemetry, *, methods: Collection[str], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Make the metrics; `host` and `port` are where /metrics will be (0: the system chooses)."""
        self._address = (host, port)
        self._metrics = Metrics(methods, exemplars=settings.exemplars)
        self._collections = Collections()
        self._tracer = _tracer(settings)
        self._stack = contextlib.AsyncExitStack()
        self._metrics.registry.register(self._collections)
        self._metrics.registry.register(_Dropped(self._tracer))

    async def __aenter__(self) -> Self:
        """Open /metrics. Raises OSError, with the setting's name, where it cannot."""
        host, port = self._address
        try:
            http, thread = start_http_server(port, host, self._metrics.registry)
        except OSError as error:
            raise address.refusal("server.metrics_port", host, port, error) from error
        self._address = (host, http.server_port)
        self._stack.callback(thread.join)
        self._stack.callback(http.server_close)
        self._stack.callback(http.shutdown)
        self._collections.start()
        self._stack.callback(self._collections.stop)
        lag = asyncio.create_task(watch_loop(self._metrics.lagged))
        self._stack.callback(lag.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the last spans, then close /metrics."""
        if self._tracer:
            await asyncio.to_thread(self._tracer.shutdown)
        await self._stack.aclose()

    @property
    def registry(self) -> CollectorRegistry:
        """What /metrics shows."""
        return self._metrics.registry

    @property
    def port(self) -> int:
        """Port of /metrics."""
        return self._address[1]

    def model_loaded(self, model: str, sha256: str, device: str, seconds: float) -> None:
        """Take note of a model that is served from now on."""
        self._metrics.add_model(model, sha256, device, seconds)

    @contextlib.contextmanager
    def call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[Observation]:
        """Observe a call: its span (see current_span), its time, its status."""
        began, observation = time.perf_counter(), Observation()
        span = self._tracer.request(method, metadata) if self._tracer else None
        _span.set(span)
        self._metrics.call_began(method)
        try:
            yield observation
        finally:
            seconds = time.perf_counter() - began
            self._metrics.call_ended(method, observation.code, seconds, span.trace_id if span else None)
            if span:
                span.end(observation.code)

    @staticmethod
    def current_span() -> object | None:
        """Return the span of the running call for Meter.step, or None if it is not traced.

        It does not cross to another thread by itself: put it into the job.
        """
        return _span.get()

    @staticmethod
    def current_trace_id() -> str | None:
        """Return the trace id of the running call in hex, or None if it is not traced."""
        span = _span.get()
        return span.trace_id if span else None

    def waited(self, method: str, seconds: float) -> None:
        """See Meter."""
        self._metrics.waited(method, seconds)

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        """See Meter."""
        self._metrics.step(model, kind, rows, padded, seconds)
        if self._tracer:
            self._tracer.step(model, kind, rows, padded, seconds, spans)

    def lane(self, model: str, attack: str, rows: int) -> None:
        """See Meter."""
        self._metrics.lane(model, attack, rows)

    def queue(self, cost: int) -> None:
        """See Meter."""
        self._metrics.queue(cost)

    def refused(self, method: str, reason: str) -> None:
        """See Meter."""
        self._metrics.refused(method, reason)

    def cancelled(self, phase: str) -> None:
        """See Meter."""
        self._metrics.cancelled(phase)

    def finished(self, attack: str, outcome: str) -> None:
        """See Meter."""
        self._metrics.finished(attack, outcome)

    def beat(self) -> None:
        """See Meter."""
        self._metrics.beat()


class _Dropped(Collector):
    """The spans that were lost, as `iguana_spans_dropped_total`."""

    def __init__(self, tracer: Tracer | None) -> None:
        """Read from this tracer."""
        self._tracer = tracer

    def collect(self) -> Iterable[Metric]:
        """Yield the counter."""
        text = "spans that never reached the collector"
        yield CounterMetricFamily(
            "iguana_spans_dropped", text, value=self._tracer.dropped if self._tracer else 0
        )


def _tracer(settings: config.Telemetry) -> Tracer | None:
    if settings.otlp_endpoint is None:
        return None
    from iguana_server.telemetry.traces import Tracer  # noqa: PLC0415 (0.3 s and 20 MB that few need)

    try:
        release = version("iguana-server")
    except PackageNotFoundError:  # run from a source tree
        release = "0"
    resource = {"service.name": "iguana", "service.version": release}
    return Tracer(settings.otlp_endpoint, settings.sample_ratio, resource)
