"""The one bounded queue in front of the device, and who goes next.

Fair among callers, earliest deadline first within a caller: each caller has a clock that
runs by the work done for it, and the slowest clock goes first (start-time fair queueing,
Goyal et al. 1996). No torch here.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from iguana_server.engine.job import Job, Row
from iguana_server.errors import InvalidArgument, Overloaded

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 0.1, 60.0


class Clocks:
    """How much has been done for each caller of a model, in looks."""

    def __init__(self) -> None:
        """Start with no callers."""
        self._at: dict[str, float] = {}

    def enter(self, caller: str) -> None:
        """A caller with new work starts level with the others: idling saves nothing up."""
        if caller not in self._at:
            self._at[caller] = min(self._at.values(), default=0.0)

    def keep(self, callers: Container[str]) -> None:
        """Forget all callers but these."""
        self._at = {caller: at for caller, at in self._at.items() if caller in callers}

    def charge(self, caller: str, cost: float) -> None:
        """Note work done."""
        self._at[caller] = self._at.get(caller, 0.0) + cost

    def pick(self, rows: Sequence[Row], limit: int) -> list[Row]:
        """At most `limit` of these rows, fairly: the slowest clock first, then the earliest deadline, then arrival."""
        if len(rows) <= limit:
            return list(rows)
        lines: dict[str, list[Row]] = {}
        for row in rows:
            lines.setdefault(row.job.caller, []).append(row)
        heap: list[tuple[float, str]] = []
        for caller, line in lines.items():
            line.sort(key=urgency, reverse=True)
            heapq.heappush(heap, (self._at.get(caller, 0.0), caller))
        picked: list[Row] = []
        while heap and len(picked) < limit:
            at, caller = heapq.heappop(heap)
            row = lines[caller].pop()
            picked.append(row)
            if lines[caller]:
                heapq.heappush(heap, (at + 1, caller))
        return picked


def urgency(row: Row) -> tuple[float, float, int]:
    """Sort key: earliest deadline, then earliest arrival, then first try."""
    job = row.job
    return (math.inf if job.deadline is None else job.deadline, job.arrived, row.restart)


@dataclass(eq=False)
class _Line:
    """The waiting jobs of one caller for one model."""

    heap: list[tuple[float, float, int, Job, deque[Row]]] = field(default_factory=list)


class Queue:
    """Rows that wait for a place. Jobs enter on the event loop; the engine's thread takes."""

    def __init__(self, max_cost: int) -> None:
        """Bound the waiting work to max_cost (rows x steps x pixels)."""
        self.max_cost = max_cost
        self._lines: dict[tuple[str, str], _Line] = {}  # (model, caller)
        self._number = itertools.count()
        self._cost = 0
        self._rate = 0.0  # cost done a second, a moving average
        self.changed = threading.Condition()

    @property
    def cost(self) -> int:
        """Work that waits."""
        return self._cost

    def put(self, job: Job) -> None:
        """Let a job wait. Raises InvalidArgument if it could never fit, Overloaded if it does not fit now."""
        cost = job.cost
        if cost > self.max_cost:
            raise InvalidArgument(
                "images", f"want at most {self.max_cost} pixels x steps in one request, got {cost}"
            )
        with self.changed:
            if self._cost + cost > self.max_cost:
                raise Overloaded(
                    f"queue: want at most {self.max_cost} pixels x steps waiting, got {self._cost} + {cost}",
                    retry_after_s=self._retry_after_s(),
                )
            rows = deque(job.rows())
            line = self._lines.setdefault((job.model, job.caller), _Line())
            deadline = math.inf if job.deadline is None else job.deadline
            heapq.heappush(line.heap, (deadline, job.arrived, next(self._number), job, rows))
            self._cost += cost
            self.changed.notify()

    def wake(self) -> None:
        """Make the engine's thread look again."""
        with self.changed:
            self.changed.notify()

    def callers(self, model: str) -> list[str]:
        """Callers with rows waiting for this model."""
        with self.changed:
            return [caller for name, caller in self._lines if name == model]

    def take(self, model: str, caller: str, now: float, drop: Callable[[Job], None]) -> Row | None:
        """The next row of this caller. Jobs that are dead or expired are dropped on the way."""
        with self.changed:
            line = self._lines.get((model, caller))
            while line is not None and line.heap:
                job, rows = line.heap[0][3:]
                dead = job.dead or job.expired(now)
                row = None if dead else rows.popleft()
                self._cost -= len(rows) * job.row_cost if dead else job.row_cost
                if dead or not rows:
                    heapq.heappop(line.heap)
                if row is not None:
                    self._forget(model, caller)
                    return row
                drop(job)
            self._forget(model, caller)
            return None

    def drop_dead(self, now: float, drop: Callable[[Job], None]) -> None:
        """Drop waiting jobs that nobody wants any more."""
        with self.changed:
            for key, line in list(self._lines.items()):
                dead = [entry for entry in line.heap if entry[3].dead or entry[3].expired(now)]
                if not dead:
                    continue
                line.heap = [entry for entry in line.heap if entry not in dead]
                heapq.heapify(line.heap)
                for *_, job, rows in dead:
                    self._cost -= len(rows) * job.row_cost
                    drop(job)
                self._forget(*key)

    def drain(self) -> list[Job]:
        """Take all waiting jobs out."""
        with self.changed:
            jobs = [entry[3] for line in self._lines.values() for entry in line.heap]
            self._lines.clear()
            self._cost = 0
            return jobs

    def done(self, cost: float, seconds: float) -> None:
        """Note that this much was done in so long: it tells the refused when to come back."""
        if seconds > 0:
            rate = cost / seconds
            self._rate = rate if self._rate == 0 else 0.9 * self._rate + 0.1 * rate

    def wait(self, timeout_s: float) -> None:
        """Wait until something changed."""
        with self.changed:
            if not self._lines:
                self.changed.wait(timeout_s)

    def _retry_after_s(self) -> float:
        seconds = self._cost / self._rate if self._rate else 1.0
        return min(max(seconds / 2, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)

    def _forget(self, model: str, caller: str) -> None:
        line = self._lines.get((model, caller))
        if line is not None and not line.heap:
            del self._lines[model, caller]
