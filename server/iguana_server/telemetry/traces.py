"""Traces: one server span a call, one root span a pass of a model, links between them.

Names and attributes follow OpenTelemetry's RPC conventions (release candidate): `rpc.system.name`,
`rpc.method`, `rpc.response.status_code`. The provider is our own, never the process's global one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

ERRORS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
MAX_LINKS = 128  # of a span, the SDK's limit
QUEUE = 2048  # spans that wait for the collector; more are dropped and counted
EXPORT_TIMEOUT_S = 3
FLUSH_S = 1.5  # after shutdown: no export begins later than this
HEADERS = ("traceparent", "tracestate")

_propagator = TraceContextTextMapPropagator()


class RequestSpan:
    """The span of one call, and what the engine's passes left for it."""

    def __init__(self, span: Span) -> None:
        """Wrap a span that has begun."""
        self._span = span
        self.context = span.get_span_context()
        self.trace_id = f"{self.context.trace_id:032x}"
        self._first: SpanContext | None = None
        self._last: SpanContext | None = None
        self._passes: dict[str, int] = {}

    def passed(self, kind: str, step: SpanContext) -> None:
        """Take note of a pass that rows of this call were in; called from the engine's thread."""
        self._first = self._first or step
        self._last = step
        self._passes[kind] = self._passes.get(kind, 0) + 1

    def end(self, code: str) -> None:
        """End the span with the call's status. Its first and last pass are linked, the others counted."""
        span = self._span
        for which, step in (("first", self._first), ("last", self._last)):
            if step is not None:
                span.add_link(step, {"iguana.step": which})
        for kind, count in self._passes.copy().items():
            span.set_attribute(f"iguana.passes.{kind}", count)
        span.set_attribute("rpc.response.status_code", code)
        if code in ERRORS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class Tracer:
    """Makes spans and sends them to an OTLP/gRPC collector; never waits for it but in `shutdown`."""

    def __init__(self, endpoint: str, sample_ratio: float, resource: Mapping[str, str]) -> None:
        """`sample_ratio` is the share of calls traced, of those whose caller has not decided."""
        self._export = _Export(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S))
        provider = TracerProvider(
            sampler=_Linked(ParentBased(TraceIdRatioBased(sample_ratio))),
            resource=Resource.create(dict(resource)),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(_Queue(self._export))
        self._provider = provider
        self._tracer = provider.get_tracer("iguana_server")

    @property
    def dropped(self) -> int:
        """Spans that never reached the collector."""
        return self._export.dropped

    def request(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> RequestSpan | None:
        """Begin the server span of a call; None if it is not sampled."""
        carrier = {key: value for key, value in metadata if key in HEADERS and isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            _propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
        )
        return RequestSpan(span) if span.get_span_context().trace_flags.sampled else None

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        """Record a pass that has just ended, if a traced call was in it."""
        members = [span for span in dict.fromkeys(spans) if isinstance(span, RequestSpan)]
        if not members:
            return
        now = time.time_ns()
        step = self._tracer.start_span(
            "iguana.step",
            Context(),
            SpanKind.INTERNAL,
            {
                "iguana.model": model,
                "iguana.pass": kind,
                "iguana.rows": rows,
                "iguana.rows_padded": padded,
                "iguana.traced_calls": len(members),
            },
            links=[Link(member.context) for member in members[:MAX_LINKS]],
            start_time=now - int(seconds * 1e9),
        )
        context = step.get_span_context()
        for member in members:
            member.passed(kind, context)
        step.end(now)

    def shutdown(self) -> None:
        """Send what waits and stop; blocks at most 5 s, also where the collector is dead."""
        self._export.close()
        self._provider.shutdown()
        self._export.abandon()


class _Linked(Sampler):
    """Keep a pass that a sampled call was in; leave the rest to `calls`."""

    def __init__(self, calls: Sampler) -> None:
        """Let `calls` decide on spans without links."""
        self._calls = calls

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        sampler = ALWAYS_ON if links else self._calls
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Linked({self._calls.get_description()})"


class _Export(SpanExporter):
    """Counts the spans that wait and those that are lost on the way to `inner`."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner, self._lock = inner, threading.Lock()
        self._waiting, self.dropped = 0, 0
        self._until = float("inf")

    def room(self) -> bool:
        """Take a place for one span; without one it is lost."""
        with self._lock:
            free = self._waiting < QUEUE
            self._waiting += free
            self.dropped += not free
        return free

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        late = time.monotonic() > self._until
        result = SpanExportResult.FAILURE if late else self._inner.export(spans)
        with self._lock:
            self._waiting -= len(spans)
            self.dropped += len(spans) if result is not SpanExportResult.SUCCESS else 0
        return result

    def close(self) -> None:
        """Let the exports of the next moment pass, and none after that."""
        self._until = time.monotonic() + FLUSH_S

    def abandon(self) -> None:
        """Count what still waits as lost, and say so."""
        with self._lock:
            self.dropped += self._waiting
            self._waiting = 0
        if self.dropped:
            logging.getLogger(__name__).warning("spans dropped", extra={"spans": self.dropped})

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Queue(BatchSpanProcessor):
    """A queue that drops the newest span when it is full, and counts it."""

    def __init__(self, export: _Export) -> None:
        super().__init__(export, max_queue_size=QUEUE, max_export_batch_size=512, schedule_delay_millis=1000)
        self._export = export

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span for export."""
        if span.context is not None and span.context.trace_flags.sampled and self._export.room():
            super().on_end(span)
