"""The Prometheus metrics of a server, in a registry of their own.

Labels take a fixed set of values: a name that nobody registered counts as "_other", so that callers cannot
make series.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

M = TypeVar("M", Counter, Gauge, Histogram)

OTHER = "_other"
CALL_BUCKETS = (0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds
WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAG_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1)  # seconds

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nothing reads


class Metrics:
    """The metrics, with their children kept: finding one by its labels costs more than counting.

    Thread-safe. `methods` are the full names of the RPCs served; models join by `add_model`.
    """

    def __init__(self, methods: Collection[str], *, exemplars: bool = True) -> None:
        """Register all metrics, and begin at 0 what alerts take a rate of."""
        self.registry = CollectorRegistry()
        self._methods, self._models, self._exemplars = frozenset(methods), set[str](), exemplars
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        ProcessCollector(registry=self.registry)
        gauge("memory_limit_bytes", "memory this process may use").set(memory_limit())
        calls = "rpc_server_duration_seconds"
        self._calls = histogram(calls, "time of a call", CALL_BUCKETS, "method", "code")
        self._in_flight = gauge("rpc_in_flight", "calls running now", "method")
        self._wait = histogram("queue_wait_seconds", "time of a job in the queue", WAIT_BUCKETS, "method")
        self._queue = gauge("queue_cost", "work that waits, in pixels x steps")
        self._steps = histogram("step_duration_seconds", "time of a pass", STEP_BUCKETS, "model", "pass")
        self._rows = histogram("step_rows", "rows of a pass, without padding", ROW_BUCKETS, "model", "pass")
        self._padding = counter("step_padding_rows", "rows computed for nobody", "model")
        self._lanes = gauge("lane_rows", "rows in a lane now", "model", "attack")
        self._forward = counter("forward", "rows that went forward through a model", "model")
        self._backward = counter("backward", "rows that went backward through a model", "model")
        self._refused = counter("refused", "jobs turned away", "method", "reason")
        self._cancelled = counter("cancelled", "jobs whose caller left", "phase")
        self._samples = counter("samples", "samples by what became of them", "attack", "outcome")
        self._info = gauge("model_info", "a loaded model; always 1", "model", "sha256", "device")
        self._load = gauge("model_load_seconds", "time a model took to load", "model")
        self._lag = histogram("event_loop_lag_seconds", "how late the event loop wakes", LAG_BUCKETS)
        self._beat = gauge("engine_heartbeat_timestamp_seconds", "last sign of life of the engine, Unix time")
        self._children: dict[tuple[object, ...], Counter | Gauge | Histogram] = {}
        for method in sorted(self._methods):
            self._child(self._calls, method, "OK")
            self._child(self._in_flight, method)
        for phase in ("queued", "running"):
            self._child(self._cancelled, phase)

    def add_model(self, model: str, sha256: str, device: str, seconds: float) -> None:
        """Make the model a label, and say where it came from."""
        self._models.add(model)
        self._info.labels(model, sha256, device).set(1)
        self._load.labels(model).set(seconds)

    def call_began(self, method: str) -> None:
        """Count a call in."""
        self._child(self._in_flight, self._method(method)).inc()

    def call_ended(self, method: str, code: str, seconds: float, trace_id: str | None) -> None:
        """Count a call out."""
        method = self._method(method)
        self._child(self._in_flight, method).dec()
        exemplar = {"trace_id": trace_id} if trace_id and self._exemplars else None
        self._child(self._calls, method, code).observe(seconds, exemplar)

    def waited(self, method: str, seconds: float) -> None:
        """See Meter."""
        self._child(self._wait, self._method(method)).observe(seconds)

    def step(self, model: str, kind: str, rows: int, padded: int, seconds: float) -> None:
        """See Meter."""
        model = self._model(model)
        self._child(self._steps, model, kind).observe(seconds)
        self._child(self._rows, model, kind).observe(rows)
        self._child(self._padding, model).inc(padded - rows)
        self._child(self._forward, model).inc(rows)
        if kind == "gradient":
            self._child(self._backward, model).inc(rows)

    def lane(self, model: str, attack: str, rows: int) -> None:
        """See Meter."""
        self._child(self._lanes, self._model(model), attack).set(rows)

    def queue(self, cost: int) -> None:
        """See Meter."""
        self._queue.set(cost)

    def refused(self, method: str, reason: str) -> None:
        """See Meter."""
        self._child(self._refused, self._method(method), reason).inc()

    def cancelled(self, phase: str) -> None:
        """See Meter."""
        self._child(self._cancelled, phase).inc()

    def finished(self, attack: str, outcome: str) -> None:
        """See Meter."""
        self._child(self._samples, attack, outcome).inc()

    def beat(self) -> None:
        """See Meter."""
        self._beat.set_to_current_time()

    def lagged(self, seconds: float) -> None:
        """Take note of how late the event loop woke."""
        self._lag.observe(seconds)

    def _method(self, method: str) -> str:
        return method if method in self._methods else OTHER

    def _model(self, model: str) -> str:
        return model if model in self._models else OTHER

    def _child(self, metric: M, *labels: str) -> M:
        children = cast("dict[tuple[object, ...], M]", self._children)
        key = (metric, *labels)
        child = children.get(key)
        if child is None:
            child = children[key] = metric.labels(*labels)
        return child

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"iguana_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"iguana_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"iguana_{name}", text, labels, registry=self.registry, buckets=buckets)


def memory_limit() -> int:
    """Return the bytes this process may use: its control group's limit, or the machine's memory."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(file)
        if path.is_file() and (text := path.read_text().strip()) != "max":
            limit = min(limit, int(text))
    return limit
