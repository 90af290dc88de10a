"""A bench: one model, its rows in flight, and a turn at it."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from iguana_server.detectors.watch import Watch
from iguana_server.engine.answer import Event, Forged, Looked, Progress
from iguana_server.engine.job import AttackJob, Job
from iguana_server.engine.lane import Lane
from iguana_server.engine.meter import Meter
from iguana_server.engine.queue import Clocks, Queue
from iguana_server.engine.row import GRADIENT_LOOKS, Row, Stage
from iguana_server.engine.seat import Seat, forged, over, seats_of
from iguana_server.engine.step import Part, Seen, look, noted
from iguana_server.errors import DeadlineExceeded
from iguana_server.models.base import Model


class Bench:
    """Used by the engine's thread alone."""

    def __init__(self, model: Model, max_rows: int, meter: Meter) -> None:
        """Serve this model; at most max_rows attacked rows are in flight, of one caller at most a pass's.

        A caller that has none gets one all the same.
        """
        self.model, self.max_rows, self._meter = model, max_rows, meter
        self._lanes: dict[tuple[str, str, bool, Watch | None], Lane] = {}
        self._looks: list[Row] = []
        self._clocks = Clocks()
        self._left = 0  # work done for the rows that have left since the last turn's end

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.spec.name

    def rows(self) -> list[Row]:
        """Rows in flight."""
        return [*self._looks, *itertools.chain.from_iterable(lane.rows for lane in self._lanes.values())]

    def admit(self, queue: Queue, now: float) -> None:
        """Forget rows that nobody waits for, hurry those that are late, then fill up from the queue."""
        self._forget(now)
        seated, looking = queue.callers(self.name, seated=True), queue.callers(self.name, seated=False)
        self._clocks.enter({*(row.job.caller for row in self.rows()), *seated, *looking})
        self._admit_looks(queue, looking, now)
        self._admit_attacks(queue, seated, now)

    def turn(self) -> float:
        """Show one gradient pass and one forward pass of rows to the model; returns the cost of those that left.

        Then one of each for the rows under each watch, as detectors are part of those passes. Rows that are given
        up have left too, with the moves they made: else a storm of cancels would pass for slowness, and others be
        refused for it.
        """
        watches = dict.fromkeys([None, *(watch for *_, watch in self._lanes)])
        for gradient, watch in itertools.product((True, False), watches):
            waiting = [
                row
                for row in self.rows()
                if (row.gradient and row.stage is Stage.MOVE) is gradient and row.job.watch is watch
            ]
            rows = self._clocks.pick(waiting, self._most(waiting, watch))
            if rows:
                self._look(rows, gradient=gradient, watch=watch)
        self._close_lanes()
        left, self._left = self._left, 0
        return left

    def _most(self, waiting: Sequence[Row], watch: Watch | None) -> int:
        """Return how many rows a turn takes: where there are STRICT looks alone, whole passes.

        Padding costs what rows do, and the callers that this turn answers may fill the next.
        """
        largest = self.model.spec.max_batch if watch is None else watch.max_batch
        most, bucket = min(len(waiting), largest), self.model.spec.bucket
        if most > bucket and not self._lanes and all(row.job.strict for row in waiting):
            most -= most % bucket
        return most

    def _admit_looks(self, queue: Queue, callers: Sequence[str], now: float) -> None:
        """Rows that only look need no seat: as many as the next pass takes."""
        heap = [(self._clocks.of(caller), caller) for caller in callers]
        heapq.heapify(heap)
        while heap and len(self._looks) < self.model.spec.max_batch:
            at, caller = heapq.heappop(heap)
            row = queue.take(self.name, caller, seated=False)
            if row is not None:
                self._start(row, now)
                self._looks.append(row)
                heapq.heappush(heap, (at + 1, caller))

    def _admit_attacks(self, queue: Queue, callers: Sequence[str], now: float) -> None:
        """Seat rows, of the caller first that has fewest seats, then the slowest clock."""
        held = Counter(row.job.caller for lane in self._lanes.values() for row in lane.rows)
        total = held.total()
        fresh: dict[AttackJob, list[Row]] = {}
        heap = [(held[caller], self._clocks.of(caller), caller) for caller in callers]
        heapq.heapify(heap)
        while heap:
            n, at, caller = heapq.heappop(heap)
            if n >= self.model.spec.max_batch or (n > 0 and total >= self.max_rows):
                continue
            row = queue.take(self.name, caller, seated=True)
            if row is None:
                continue
            job = row.job
            assert isinstance(job, AttackJob)  # noqa: S101 - seated
            if job.settled(row.sample):
                pass
            elif job.late(now) and row.restart > 0:  # the first try is enough to have something to deliver
                self._deliver([(job, job.skip(row))])
            else:
                self._start(row, now)
                fresh.setdefault(job, []).append(row)
                n, total = n + 1, total + 1
            heapq.heappush(heap, (n, at, caller))
        for job, rows in fresh.items():
            self._join(job, rows)
            if job.late(now):
                _hurry(rows)

    def _look(self, rows: Sequence[Row], *, gradient: bool, watch: Watch | None) -> None:
        """One look at these rows, all under the same watch, and what follows from it."""
        chosen, spec = set(rows), self.model.spec
        seats = [seat for lane in self._lanes.values() for seat in seats_of(lane, chosen)]
        parts = [seat.part() for seat in seats]
        looks = [row for row in self._looks if row in chosen]
        if looks:
            images = torch.stack([row.job.images[row.sample] for row in looks])
            parts.append(Part(self._laid_out(images), [row.job.strict for row in looks]))
        note = noted(self._meter, self.name, rows, gradient=gradient)
        seen = look(
            self.model,
            parts,
            gradient=gradient,
            sizes=self.model.sizes if watch is None else watch.sizes,
            max_batch=spec.max_batch if watch is None else watch.max_batch,
            note=note,
            features=self.model.look if any(row.job.features for row in looks) else None,
            watch=watch,
        )
        for row in rows:
            row.forward += row.job.looks
            self._clocks.charge(row.job.caller, (GRADIENT_LOOKS if gradient else 1) * row.job.looks)
        # Rows that only look have the last part to themselves.
        for seat, part, what in zip(seats, parts, seen, strict=False):
            self._advance(seat, part.images, what)
        if looks:
            self._answer(looks, seen[-1])
        for lane in dict.fromkeys(seat.lane for seat in seats):
            self._retire(lane)

    def _advance(self, seat: Seat, points: Tensor, seen: Seen) -> None:
        """Let a table judge what was seen, and move; report it."""
        table, rows, stage = seat.table, seat.rows, seat.stage
        seat.advance(points, seen if seen.grad.dim() == 1 else replace(seen, grad=self._laid_out(seen.grad)))
        watched = [i for i, row in enumerate(rows) if stage is Stage.MOVE and row.job.reports(row.moves)]
        if not watched:
            return
        loss, margin, fooled = seen.loss.tolist(), table.margin.tolist(), table.fooled.tolist()
        reports: dict[Job, list[Event]] = {}
        for i in watched:
            row = rows[i]
            report = Progress(row.sample, row.restart, row.moves, row.steps, loss[i], margin[i], fooled[i])
            reports.setdefault(row.job, []).append(report)
        _post(reports)

    def _retire(self, lane: Lane) -> None:
        """Answer rows that are done and take them out."""
        leaving = over(lane)
        if leaving:
            answers = zip(leaving, forged(lane.table(), leaving), strict=True)
            self._deliver((row.job, row.job.finish(one)) for row, one in answers)
            lane.remove(set(leaving))
            self._left += sum(row.job.row_cost for row in leaving)

    def _deliver(self, settled: Iterable[tuple[Job, Forged | None]]) -> None:
        """Hand over the answers of samples, those that are certain now."""
        answers: dict[Job, list[Event]] = {}
        for job, answer in settled:
            if answer is not None:
                assert isinstance(job, AttackJob)  # noqa: S101 - only attacks forge
                self._meter.finished(job.plan.attack.name, answer.outcome)
                answers.setdefault(job, []).append(answer)
        _post(answers)

    def _answer(self, rows: Sequence[Row], seen: Seen) -> None:
        """Answer rows that only look."""
        answers: dict[Job, list[Event]] = {}
        logits, features = seen.logits.cpu().clone(), seen.features.cpu().clone()
        for row, line, inner in zip(rows, logits, features, strict=True):
            asked = inner if row.job.features else inner[:0]
            answers.setdefault(row.job, []).append(Looked(row.sample, line, asked))
        _post(answers)
        gone = set(rows)
        self._looks = [row for row in self._looks if row not in gone]
        self._left += sum(row.job.row_cost for row in rows)

    def _start(self, row: Row, now: float) -> None:
        """A row has left the queue."""
        job = row.job
        if not job.started:
            job.started = True
            self._meter.waited(job.method, now - job.arrived)

    def _join(self, job: AttackJob, rows: Sequence[Row]) -> None:
        """Seat new rows in their lane."""
        images = self._laid_out(job.images[torch.tensor([row.sample for row in rows])])
        table = job.table(rows, images, len(self.model.spec.classes))
        key = (table.name, table.loss_name, table.on_grid, job.watch)
        if key in self._lanes:
            self._lanes[key].add(table, rows)
        else:
            self._lanes[key] = Lane(table, rows)

    def _forget(self, now: float) -> None:
        """Take out rows of jobs that are cancelled or expired, and of samples that have their answer."""
        late = set()
        for job in {row.job for row in self.rows()}:
            if job.dead or job.expired(now):
                give_up(job, self._meter)
            elif job.late(now):
                late.add(job)
        self._looks = [row for row in self._looks if not row.job.dead]
        for lane in self._lanes.values():
            leaving = {row for row in lane.rows if row.job.dead or row.job.settled(row.sample)}
            if leaving:
                lane.remove(leaving)
                self._left += sum(row.moves * row.job.look_cost for row in leaving)
            if late:
                _hurry(row for row in lane.rows if row.job in late)

    def _close_lanes(self) -> None:
        """Forget empty lanes, and tell how full the others are, by attack."""
        rows: Counter[str] = Counter()
        for (attack, *_), lane in self._lanes.items():
            rows[attack] += len(lane)
        for attack, n in rows.items():
            self._meter.lane(self.name, attack, n)
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.rows}

    def _laid_out(self, images: Tensor) -> Tensor:
        """In the model's memory format, on its device."""
        return images.to(self.model.device).contiguous(memory_format=self.model.memory_format)


def give_up(job: Job, meter: Meter) -> None:
    """Close a job that is cancelled, or has passed its deadline; say so once."""
    if job.closed:
        return
    job.closed = True
    meter.cancelled("running" if job.started else "queued")
    if not job.dead:
        job.fail(DeadlineExceeded(f"deadline: passed {'in the engine' if job.started else 'in the queue'}"))


def _hurry(rows: Iterable[Row]) -> None:
    """Let the next look of these rows be their last."""
    for row in rows:
        row.stage = Stage.LAST


def _post(events: dict[Job, list[Event]]) -> None:
    for job, news in events.items():
        job.post(news)
