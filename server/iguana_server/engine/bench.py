"""A bench: one model, its rows in flight, and a turn at it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from iguana_server.attacks.base import Attack
from iguana_server.engine.job import (
    AttackJob,
    Ended,
    Event,
    Forged,
    Job,
    Looked,
    Progress,
    Row,
    Stage,
)
from iguana_server.engine.lane import Lane
from iguana_server.engine.meter import Meter
from iguana_server.engine.queue import Clocks, Queue
from iguana_server.engine.step import Part, Pass, Seen, look
from iguana_server.errors import DeadlineExceeded
from iguana_server.models.base import Model

_GRADIENT_COST = 3  # a forward and a backward, in forwards
_ORDER = {Stage.MOVE: 0, Stage.OPEN: 1, Stage.LAST: 2}


class Bench:
    """Used by the engine's thread alone."""

    def __init__(self, model: Model, max_rows: int, meter: Meter) -> None:
        """Serve this model; at most max_rows rows are in flight, of one caller at most a pass's."""
        self.model, self.max_rows, self._meter = model, max_rows, meter
        self._lanes: dict[tuple[str, str, bool], Lane] = {}
        self._looks: list[Row] = []
        self._clocks = Clocks()

    def rows(self) -> list[Row]:
        """Rows in flight."""
        return [*self._looks, *itertools.chain.from_iterable(lane.rows for lane in self._lanes.values())]

    def admit(self, queue: Queue, now: float) -> None:
        """Forget rows that nobody waits for, then fill up from the queue."""
        self._forget(now)
        name, most = self.model.spec.name, self.model.spec.max_batch
        held: dict[str, int] = {}
        for row in self.rows():
            held[row.job.caller] = held.get(row.job.caller, 0) + 1
        fresh: dict[AttackJob, list[Row]] = {}
        for caller in queue.callers(name):
            self._clocks.enter(caller)
            while sum(held.values()) < self.max_rows and held.get(caller, 0) < most:
                taken = queue.take(name, caller, now, lambda job: give_up(job, self._meter))
                if taken is None:
                    break
                row, job = taken, taken.job
                if not job.started:
                    job.started = True
                    self._meter.waited(job.method, now - job.arrived)
                if not isinstance(job, AttackJob):
                    self._looks.append(row)
                elif job.settled(row.sample):
                    continue
                else:
                    row.late = _late(job, now)
                    fresh.setdefault(job, []).append(row)
                held[caller] = held.get(caller, 0) + 1
        self._clocks.keep(held)
        for job, rows in fresh.items():
            self._join(job, rows)

    def turn(self, now: float) -> float:
        """Show one gradient pass and one forward pass of rows to the model; returns the pixels looked at."""
        for row in itertools.chain.from_iterable(lane.rows for lane in self._lanes.values()):
            if _late(row.job, now):
                row.late, row.stage = True, Stage.LAST
        done = 0.0
        for gradient in (True, False):
            waiting = [row for row in self.rows() if _wants_gradient(row) is gradient]
            rows = self._clocks.pick(waiting, self.model.spec.max_batch)
            if rows:
                self._look(rows, gradient=gradient)
                done += len(rows) * rows[0].job.pixels * (1.0 if gradient else 1 / _GRADIENT_COST)
        for key in [key for key, lane in self._lanes.items() if not lane.rows]:
            del self._lanes[key]
            self._meter.lane(self.model.spec.name, key[0], 0)
        return done

    def _look(self, rows: Sequence[Row], *, gradient: bool) -> None:
        """One look at these rows, and what follows from it."""
        chosen = set(rows)
        seats = list(itertools.chain.from_iterable(_seats(lane, chosen) for lane in self._lanes.values()))
        parts: list[Part] = []
        for lane, stage, start, stop in seats:
            table = lane.table(start, stop)
            points = table.points() if stage is Stage.MOVE else table.candidates()
            strict = [row.job.strict for row in lane.rows[start:stop]]
            parts.append(Part(points, strict, table.loss_name, table.label, table.clean, table.targeted))
        looks = [row for row in self._looks if row in chosen]
        if looks:
            images = torch.stack([row.job.images[row.sample] for row in looks])
            parts.append(Part(self._laid_out(images), [row.job.strict for row in looks]))
        spec = self.model.spec
        seen = look(
            self.model,
            parts,
            gradient=gradient,
            bucket=spec.bucket,
            max_batch=spec.max_batch,
            note=self._note(rows, gradient=gradient),
        )
        for row in rows:
            row.forward += 1
            row.backward += gradient
            self._clocks.charge(row.job.caller, _GRADIENT_COST if gradient else 1)
        for (lane, stage, start, stop), part, what in zip(seats, parts, seen, strict=False):
            self._advance(lane.table(start, stop), lane.rows[start:stop], stage, part.images, what)
        if looks:
            self._answer(looks, seen[-1].logits)
        for lane in {id(seat[0]): seat[0] for seat in seats}.values():
            self._retire(lane)

    def _advance(self, table: Attack, rows: Sequence[Row], stage: Stage, points: Tensor, seen: Seen) -> None:
        """Let a table judge what was seen, and move."""
        if stage is not Stage.MOVE or not table.looks_ahead:
            table.observe(points, seen.logits, seen.loss)
        if stage is Stage.OPEN:
            table.begin()
        elif stage is Stage.MOVE:
            table.move(
                seen.logits, seen.loss, seen.grad if seen.grad.dim() == 1 else self._laid_out(seen.grad)
            )
        for row in rows:
            if stage is Stage.MOVE:
                row.moves += 1
            row.stage = (
                Stage.OVER if stage is Stage.LAST else Stage.MOVE if row.moves < row.steps else Stage.LAST
            )
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
        done = lane.table().done.tolist()
        leaving = [row for row, over in zip(lane.rows, done, strict=True) if over or row.stage is Stage.OVER]
        if leaving:
            table = lane.table().select(torch.tensor([row.place for row in leaving]))
            answers: dict[Job, list[Event]] = {}
            for row, forged in zip(leaving, _forged(table, leaving), strict=True):
                answer = row.job.finish(forged)
                if answer is not None:
                    self._meter.finished(table.name, answer.outcome)
                    answers.setdefault(row.job, []).append(answer)
            _post(answers)
            lane.remove(set(leaving))
        self._meter.lane(self.model.spec.name, lane.table().name, len(lane))

    def _answer(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Answer rows that only look."""
        answers: dict[Job, list[Event]] = {}
        for row, line in zip(rows, logits.clone(), strict=True):
            answers.setdefault(row.job, []).append(Looked(row.sample, line))
        _post(answers)
        gone = set(rows)
        self._looks = [row for row in self._looks if row not in gone]

    def _join(self, job: AttackJob, rows: Sequence[Row]) -> None:
        """Seat new rows in their lane."""
        images = self._laid_out(job.images[torch.tensor([row.sample for row in rows])])
        table = job.table(rows, images, len(self.model.spec.classes))
        key = (table.name, table.loss_name, table.on_grid)
        if key in self._lanes:
            self._lanes[key].add(table, rows)
        else:
            self._lanes[key] = Lane(table, rows)

    def _forget(self, now: float) -> None:
        """Take out rows of jobs that are cancelled or expired, and of samples that have their answer."""
        for job in {row.job for row in self.rows()}:
            if job.dead or job.expired(now):
                give_up(job, self._meter)
        self._looks = [row for row in self._looks if not row.job.dead]
        for lane in self._lanes.values():
            leaving = {row for row in lane.rows if row.job.dead or row.job.settled(row.sample)}
            if leaving:
                lane.remove(leaving)

    def _note(self, rows: Sequence[Row], *, gradient: bool) -> Callable[[Pass], None]:
        """Tell the meter of every pass as it ends."""
        spans = list({id(row.job): row.job.span for row in rows if row.job.span is not None}.values())
        begun = time.perf_counter()

        def note(one: Pass) -> None:
            nonlocal begun
            now = time.perf_counter()
            kind = "gradient" if gradient else "forward"
            self._meter.step(self.model.spec.name, kind, one.stop - one.start, one.size, now - begun, spans)
            begun = now

        return note

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
        job.fail(DeadlineExceeded(f"deadline: passed {'in the attack' if job.started else 'in the queue'}"))


def _seats(lane: Lane, chosen: set[Row]) -> list[tuple[Lane, Stage, int, int]]:
    """Bring the chosen rows of a lane together by stage: (lane, stage, start, stop)."""
    lane.arrange(lambda row: _ORDER[row.stage] if row in chosen else len(_ORDER))
    seats = []
    for stage, rows in itertools.groupby(
        (row for row in lane.rows if row in chosen), key=lambda row: row.stage
    ):
        places = [row.place for row in rows]
        seats.append((lane, stage, places[0], places[-1] + 1))
    return seats


def _forged(table: Attack, rows: Sequence[Row]) -> Iterable[Forged]:
    """The answers of these rows."""
    names = ("fooled", "already", "finite", "margin", "merit", "loss", "best_t", "zero_gradients", "done")
    columns = {name: getattr(table, name).tolist() for name in names}
    for i, row in enumerate(rows):
        c = {name: column[i] for name, column in columns.items()}
        if not c["finite"]:
            ended = Ended.NON_FINITE
        elif c["already"]:
            ended = Ended.ALREADY
        elif c["done"]:
            ended = Ended.STOP
        else:
            ended = Ended.TIME_LIMIT if row.moves < row.steps else Ended.STEPS
        yield Forged(
            sample=row.sample,
            restart=row.restart,
            ended=ended,
            fooled=c["fooled"],
            image=table.best[i],
            before=table.before[i],
            after=table.after[i],
            margin=c["margin"],
            merit=c["merit"],
            loss=c["loss"],
            step=c["best_t"],
            forward=row.forward,
            backward=row.backward,
            zero_gradients=c["zero_gradients"],
        )


def _post(events: dict[Job, list[Event]]) -> None:
    for job, news in events.items():
        job.post(news)


def _late(job: Job, now: float) -> bool:
    return isinstance(job, AttackJob) and job.time_limit is not None and now >= job.time_limit


def _wants_gradient(row: Row) -> bool:
    return row.stage is Stage.MOVE and isinstance(row.job, AttackJob) and row.job.plan.attack.gradient
