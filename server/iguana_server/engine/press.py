"""A press: a network that maps rows to pictures (or a critic), its rows in flight, and a turn at it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.engine.answer import Event, Mapped
from iguana_server.engine.bench import give_up
from iguana_server.engine.job import Job
from iguana_server.engine.meter import Meter
from iguana_server.engine.queue import Clocks, Queue
from iguana_server.engine.row import GRADIENT_LOOKS, Row
from iguana_server.engine.step import Pass, noted, passes
from iguana_server.engine.synthesis import InvertJob, gathered
from iguana_server.generators.inversion import Question, Seen, look
from iguana_server.synthesis.base import Network


class Press:
    """Used by the engine's thread alone."""

    def __init__(self, network: Network, max_rows: int, meter: Meter) -> None:
        """Serve this network; at most max_rows rows are being inverted, of one caller at most a pass's."""
        self.network, self.max_rows, self._meter = network, max_rows, meter
        self._mapped: list[Row] = []
        self._inverted: list[Row] = []
        self._clocks = Clocks()
        self._left = 0  # work done for the rows that have left since the last turn's end
        shapes = [column.shape[1:] for column in network.example(1, torch.Generator())]
        self._usual = shapes[0]  # that the probe has seen

    @property
    def name(self) -> str:
        """The network's."""
        return self.network.name

    def rows(self) -> list[Row]:
        """Rows in flight."""
        return [*self._mapped, *self._inverted]

    def admit(self, queue: Queue, now: float) -> None:
        """Forget rows that nobody waits for, then fill up from the queue, fairly among callers."""
        self._forget(now)
        moving, mapping = queue.callers(self.name, seated=True), queue.callers(self.name, seated=False)
        self._clocks.enter({*(row.job.caller for row in self.rows()), *moving, *mapping})
        self._fill(queue, self._mapped, mapping, most=self.network.max_batch, seated=False, now=now)
        self._fill(queue, self._inverted, moving, most=self.max_rows, seated=True, now=now)

    def turn(self) -> float:
        """Map one pass of rows, give one gradient pass to those that are inverted; return the cost of who left."""
        most = self.network.max_batch
        if self._mapped:
            self._map(self._alike(self._clocks.pick(self._mapped, most)))
        if self._inverted:
            self._invert(self._clocks.pick(self._inverted, most))
        left, self._left = self._left, 0
        return left

    def _fill(
        self, queue: Queue, seats: list[Row], callers: Sequence[str], *, most: int, seated: bool, now: float
    ) -> None:
        """Let rows in, of the caller first that has fewest here, then the slowest clock."""
        held = Counter(row.job.caller for row in seats)
        heap = [(held[caller], self._clocks.of(caller), caller) for caller in callers]
        heapq.heapify(heap)
        while heap:
            n, at, caller = heapq.heappop(heap)
            if n >= self.network.max_batch or (len(seats) >= most and not (seated and n == 0)):
                continue
            row = queue.take(self.name, caller, seated=seated)
            if row is None:
                continue
            if not row.job.started:
                row.job.started = True
                self._meter.waited(row.job.method, now - row.job.arrived)
            seats.append(row)
            heapq.heappush(heap, (n + 1, at, caller))

    def _forget(self, now: float) -> None:
        for job in {row.job for row in self.rows()}:
            if job.dead or job.expired(now):
                give_up(job, self._meter)
        self._left += sum(_work(row) for row in self._inverted if row.job.dead)
        self._mapped = [row for row in self._mapped if not row.job.dead]
        self._inverted = [row for row in self._inverted if not row.job.dead]

    def _alike(self, rows: Sequence[Row]) -> list[Row]:
        """Return those that can share a pass with the first: of the shape that the probe has seen; others go alone."""
        if rows[0].job.images.shape[1:] != self._usual:
            return list(rows[:1])
        return [row for row in rows if row.job.images.shape[1:] == self._usual]

    def _map(self, rows: Sequence[Row]) -> None:
        """Show these rows to the network, and let them out."""
        usual = rows[0].job.images.shape[1:] == self._usual
        order = sorted(rows, key=lambda row: not row.job.strict)
        columns = [column.to(self.network.device) for column in gathered(order)]
        note = noted(self._meter, self.name, order, gradient=False)
        values: list[Tensor] = []
        for one in self._passes(order, usual=usual):
            with torch.inference_mode():
                y = self.network(*(_padded(column[one.start : one.stop], one.size) for column in columns))
                y = y[: one.stop - one.start]
                values.append((ops.float_to_pixels(_dense(y)) if y.dim() > 1 else y).cpu())
            note(one)
        news: dict[Job, list[Event]] = {}
        for row, value in zip(order, torch.cat(values), strict=True):
            row.forward += 1
            self._clocks.charge(row.job.caller, 1)
            self._left += row.job.row_cost
            news.setdefault(row.job, []).append(Mapped(row.sample, value.clone()))
        self._leave(set(rows), news)

    def _invert(self, rows: Sequence[Row]) -> None:
        """One look at these rows' codes, and a move of each."""
        order = sorted(rows, key=lambda row: not row.job.strict)
        jobs: dict[InvertJob, list[int]] = {}  # places in the order, by job
        for i, row in enumerate(order):
            assert isinstance(row.job, InvertJob)  # noqa: S101 - seated
            jobs.setdefault(row.job, []).append(i)
        where = {job: torch.tensor([job.place(order[i]) for i in places]) for job, places in jobs.items()}
        asked = [job.table.question(where[job]) for job in jobs]
        back = torch.tensor([i for places in jobs.values() for i in places]).argsort()
        columns = [
            torch.cat([getattr(question, field) for question in asked])[back].to(self.network.device)
            for field in Question.__slots__
        ]
        note = noted(self._meter, self.name, order, gradient=True)
        parts: list[Seen] = []
        for one in self._passes(order, usual=True):
            padded = (_padded(column[one.start : one.stop], one.size) for column in columns)
            seen, n = look(self.network, Question(*padded)), one.stop - one.start
            parts.append(Seen(seen.pixels[:n], seen.error[:n], seen.grad[:n]))
            note(one)
        whole = [torch.cat([getattr(part, field) for part in parts]) for field in Seen.__slots__]
        for job, places in jobs.items():
            job.table.advance(where[job], Seen(*(column[torch.tensor(places)] for column in whole)))
        news: dict[Job, list[Event]] = {}
        done: set[Row] = set()
        for row in order:
            assert isinstance(row.job, InvertJob)  # noqa: S101 - as above
            row.moves, row.forward, row.backward = row.moves + 1, row.forward + 1, row.backward + 1
            self._clocks.charge(row.job.caller, GRADIENT_LOOKS)
            if row.job.table.done(row.job.place(row)):
                done.add(row)
                self._left += _work(row)
                answer = row.job.leave(row)
                if answer is not None:
                    news.setdefault(row.job, []).append(answer)
        self._leave(done, news)

    def _passes(self, order: Sequence[Row], *, usual: bool) -> list[Pass]:
        """Cut rows, the strict ones first, into passes; pictures of sizes of their own go alone."""
        strict = sum(row.job.strict for row in order)
        return (
            passes(strict, len(order), self.network.sizes, self.network.max_batch)
            if usual
            else [Pass(i, i + 1, 1) for i in range(len(order))]
        )

    def _leave(self, done: set[Row], news: dict[Job, list[Event]]) -> None:
        self._mapped = [row for row in self._mapped if row not in done]
        self._inverted = [row for row in self._inverted if row not in done]
        for job, events in news.items():
            job.post(events)


def _padded(column: Tensor, size: int) -> Tensor:
    return torch.cat([column, column.new_zeros((size - len(column), *column.shape[1:]))])


def _dense(x: Tensor) -> Tensor:
    """Return pictures without gaps in memory, in the layout that they have."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _work(row: Row) -> int:
    """Return what was done for a row that is inverted."""
    return row.job.row_cost * min(row.moves, row.steps + 1) // (row.steps + 1)
