"""A real OTLP/gRPC collector that keeps what it gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans in the order they come; `hang` makes it answer nobody."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.hang = threading.Event()
        self.endpoint = ""

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans."""
        while self.hang.is_set() and context.is_active():
            threading.Event().wait(0.05)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        """Return the spans of this name."""
        return [span for span in self.spans if span.name == name]


def attributes(span: Span | Span.Link) -> dict[str, Any]:
    """Return a span's attributes as Python values."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Serve a collector on a port of its own."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        collector.hang.clear()
        server.stop(None).wait()
