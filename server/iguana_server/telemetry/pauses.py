"""Pauses of the process: garbage collections, and an event loop that wakes late."""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

GC_BUCKETS = (0.0001, 0.001, 0.005, 0.02, 0.1, 0.5)  # seconds
LAG_PERIOD_S = 0.1


class Collections(Collector):
    """The time of each garbage collection, as `iguana_gc_pause_seconds`.

    A collection may begin anywhere, also inside a metric that holds its lock: so the callback takes no lock,
    it adds to plain numbers (no two collections run at once), and a scrape reads them.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self._counts = [0] * (len(GC_BUCKETS) + 1)
        self._sum = self._began = 0.0

    def start(self) -> None:
        """Begin to listen."""
        gc.callbacks.append(self._collection)

    def stop(self) -> None:
        """Listen no more."""
        gc.callbacks.remove(self._collection)

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            seconds = time.perf_counter() - self._began
            self._counts[bisect_left(GC_BUCKETS, seconds)] += 1
            self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram."""
        family = HistogramMetricFamily("iguana_gc_pause_seconds", "time of a garbage collection")
        total, buckets = 0, []
        for bound, count in zip((*map(str, GC_BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([], buckets, self._sum)
        yield family


async def watch_loop(lagged: Callable[[float], None]) -> None:
    """Tell, ten times a second, how many seconds late the event loop woke. Runs until cancelled."""
    while True:
        due = time.perf_counter() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        lagged(max(0.0, time.perf_counter() - due))
