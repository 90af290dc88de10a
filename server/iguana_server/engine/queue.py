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
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

from iguana_server.engine.job import Job
from iguana_server.engine.pace import Pace
from iguana_server.engine.row import Row
from iguana_server.errors import InvalidArgument, Overloaded, ServeError

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 0.1, 60.0
_LATEST_START = 0.5  # of the time to the deadline: what begins later would not end in time


class Clocks:
    """How much has been done for each caller of a model, in looks."""

    def __init__(self) -> None:
        """Start with no callers."""
        self._at: dict[str, float] = {}

    def of(self, caller: str) -> float:
        """What was done for a caller."""
        return self._at[caller]

    def enter(self, callers: Iterable[str]) -> None:
        """Take these callers for all that have work. Who is new starts level: idling saves nothing up."""
        now = set(callers)
        floor = min((at for caller, at in self._at.items() if caller in now), default=None)
        if floor is None:
            floor = max(self._at.values(), default=0.0)
        self._at = {caller: self._at.get(caller, floor) for caller in now}

    def charge(self, caller: str, looks: float) -> None:
        """Note work done."""
        self._at[caller] += looks

    def pick(self, rows: Sequence[Row], limit: int) -> list[Row]:
        """At most `limit` of these rows, fairly: the slowest clock first, then the most urgent."""
        if len(rows) <= limit:
            return list(rows)
        lines: dict[str, list[Row]] = {}
        for row in rows:
            lines.setdefault(row.job.caller, []).append(row)
        for line in lines.values():
            line.sort(key=urgency, reverse=True)
        heap = [(self._at[caller], caller) for caller in lines]
        heapq.heapify(heap)
        picked: list[Row] = []
        while heap and len(picked) < limit:
            at, caller = heapq.heappop(heap)
            picked.append(lines[caller].pop())
            if lines[caller]:
                heapq.heappush(heap, (at + 1, caller))
        return picked


def urgency(row: Row) -> tuple[float, float, int, int]:
    """Sort key: earliest deadline, then arrival, then first try; samples in order, so that some finish first."""
    job = row.job
    return (math.inf if job.deadline is None else job.deadline, job.arrived, row.restart, row.sample)


Entry = tuple[float, float, int, Job, deque[Row]]  # deadline, arrival, number, job, its rows that wait
Key = tuple[str, bool, str]  # model, seated, caller


class Queue:
    """Rows that wait for a look. Jobs enter on the event loop; the engine's thread takes."""

    def __init__(self, max_cost: int) -> None:
        """Bound what waits to max_cost (rows x steps x pixels); how long that takes is told by the models' paces."""
        self.max_cost = max_cost
        self._lines: dict[Key, list[Entry]] = {}  # heaps
        self._number = itertools.count()
        self._cost = 0
        self._owed = defaultdict[str, Counter[str]](Counter)  # cost that waits, by model and caller
        self._paces = defaultdict[str, Pace](Pace)  # by model
        self._closed: ServeError | None = None
        self._changed = threading.Condition()

    @property
    def cost(self) -> int:
        """Work that waits."""
        return self._cost

    def put(self, job: Job) -> None:
        """Let a job wait.

        Raises InvalidArgument if it could never fit, Overloaded if it does not fit now or would not
        begin long enough before its deadline, and what the queue was closed with.
        """
        cost = job.cost
        if cost > self.max_cost:
            want = f"want at most {self.max_cost} pixels x steps in one request, got {cost}"
            raise InvalidArgument("images", want)
        with self._changed:
            if self._closed is not None:
                raise type(self._closed)(*self._closed.args)
            if self._cost + cost > self.max_cost:
                text = (
                    f"queue: want at most {self.max_cost} pixels x steps waiting, got {self._cost} + {cost}"
                )
                raise Overloaded(text, retry_after_s=self._retry_after_s())
            wait_s = self._wait_s(job)
            if job.deadline is not None and wait_s > max(0.0, _LATEST_START * (job.deadline - job.arrived)):
                text = f"queue: want a deadline of {wait_s / _LATEST_START:.3g} s or later, got {job.deadline - job.arrived:.3g} s"
                raise Overloaded(text, retry_after_s=self._retry_after_s())
            deadline = math.inf if job.deadline is None else job.deadline
            line = self._lines.setdefault((job.model, job.seated, job.caller), [])
            heapq.heappush(line, (deadline, job.arrived, next(self._number), job, deque(job.rows())))
            self._owe(job, job.size)
            self._changed.notify()

    def wake(self) -> None:
        """Make the engine's thread look again."""
        with self._changed:
            self._changed.notify()

    def close(self, error: ServeError) -> None:
        """Let nothing in any more, and forget what waits."""
        with self._changed:
            self._closed = error
            self._lines.clear()
            self._owed.clear()
            self._cost = 0

    def callers(self, model: str, *, seated: bool) -> list[str]:
        """Callers with rows waiting for this model: rows that need a place in a lane, or the others."""
        with self._changed:
            return [caller for name, kind, caller in self._lines if name == model and kind is seated]

    def take(self, model: str, caller: str, *, seated: bool) -> Row | None:
        """The next row of this caller."""
        with self._changed:
            line = self._lines.get((model, seated, caller))
            if line is None:
                return None
            job, rows = line[0][3:]
            row = rows.popleft()
            self._owe(job, -1)
            if not rows:
                heapq.heappop(line)
                if not line:
                    del self._lines[model, seated, caller]
            return row

    def drop_dead(self, now: float) -> list[Job]:
        """Take out and return the waiting jobs that nobody wants, or whose deadline has passed."""
        dropped: list[Job] = []
        with self._changed:
            for key, line in list(self._lines.items()):
                live: list[Entry] = []
                for entry in line:
                    job, rows = entry[3:]
                    if job.dead or job.expired(now):
                        dropped.append(job)
                        self._owe(job, -len(rows))
                    else:
                        live.append(entry)
                if not live:
                    del self._lines[key]
                elif len(live) < len(line):
                    heapq.heapify(live)
                    self._lines[key] = live
        return dropped

    def done(self, left: Mapping[str, float], seconds: float) -> None:
        """Note a turn of so many seconds: what left of each model that was at work (if early, at its full cost)."""
        with self._changed:
            for model, cost in left.items():
                self._paces[model].note(cost, seconds)

    def wait(self, timeout_s: float) -> None:
        """Wait until something changed."""
        with self._changed:
            if not self._lines:
                self._changed.wait(timeout_s)

    def _owe(self, job: Job, rows: int) -> None:
        """Count rows in, or out."""
        self._cost += rows * job.row_cost
        owed = self._owed[job.model]
        owed[job.caller] += rows * job.row_cost
        if not owed[job.caller]:
            del owed[job.caller]
        if not owed:
            del self._owed[job.model]

    def _wait_s(self, job: Job) -> float:
        """How long until a new job begins, as far as can be told; 0 without evidence.

        Whichever is sooner: after all that waits for its model, or after its caller's, with the others taking turns.
        """
        owed = self._owed.get(job.model, Counter())
        return self._paces[job.model].seconds(min(owed.total(), owed[job.caller] * len(owed)))

    def _retry_after_s(self) -> float:
        """Half the time in which what waits is done, each model's beside the others'."""
        seconds = max(
            (self._paces[model].seconds(owed.total()) for model, owed in self._owed.items()), default=0.0
        )
        return min(max((seconds or 2.0) / 2, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
