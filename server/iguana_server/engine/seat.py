"""A seat: rows of a lane that are at one stage, and what a look does to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, Attack
from iguana_server.engine.answer import Ended, Forged
from iguana_server.engine.lane import Lane
from iguana_server.engine.row import Row, Stage
from iguana_server.engine.step import Evasion, Part, Seen

_ANSWERED = (
    *("fooled", "already", "finite", "done", "spent", "margin", "merit", "loss", "best_t"),
    *("zero_gradients", "judgements", "rises", "first_loss"),
)
_ORDER = {Stage.MOVE: 0, Stage.OPEN: 1, Stage.LAST: 2}


@dataclass(frozen=True, slots=True)
class Seat:
    """Rows start to stop of a lane, all at one stage."""

    lane: Lane
    stage: Stage
    start: int
    stop: int

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return self.lane.rows[self.start : self.stop]

    @property
    def table(self) -> Attack:
        """Their columns."""
        return self.lane.table(self.start, self.stop)

    def part(self) -> Part:
        """Where they look next, and what their loss needs."""
        table = self.table
        points = table.points() if self.stage is Stage.MOVE else table.candidates()
        strict = [row.job.strict for row in self.rows]
        label, targeted = table.aims()
        leaves = (table.stop == FIRST_SUCCESS) & table.judged()
        leaves &= (label == table.label) & (targeted == table.targeted)
        watched = self.rows[0].job.watch is not None
        evasion = Evasion(table.allowed, table.suspicion_weight, table.in_turn) if watched else None
        return Part(points, strict, table.loss_name, label, table.clean, targeted, leaves, evasion)

    def advance(self, points: Tensor, seen: Seen) -> None:
        """Let the table judge what was seen at these points, and move."""
        table, rows, stage = self.table, self.rows, self.stage
        for row, backward in zip(rows, seen.backward.tolist(), strict=True):
            row.backward += backward
        judged = table.judged() if stage is Stage.MOVE else torch.ones_like(table.done)
        table.suspicion.copy_(seen.suspicion)
        table.observe(points, seen.logits, seen.loss, judged)
        if stage is Stage.OPEN:
            table.begin()
        elif stage is Stage.MOVE:
            table.move(seen.logits, seen.loss, seen.grad)
        for row, spent in zip(rows, table.spent.tolist(), strict=True):
            if stage is Stage.MOVE:
                row.moves += 1
            moves = row.moves < row.steps and not spent
            row.stage = Stage.OVER if stage is Stage.LAST else Stage.MOVE if moves else Stage.LAST


def seats_of(lane: Lane, chosen: set[Row]) -> list[Seat]:
    """Bring the chosen rows of a lane together by stage."""
    lane.arrange(lambda row: _ORDER[row.stage] if row in chosen else len(_ORDER))
    seats = []
    for stage, rows in itertools.groupby(
        (row for row in lane.rows if row in chosen), key=lambda row: row.stage
    ):
        places = [row.place for row in rows]
        seats.append(Seat(lane, stage, places[0], places[-1] + 1))
    return seats


def over(lane: Lane) -> list[Row]:
    """Return the rows of a lane whose answer is final."""
    done = lane.table().done.tolist()
    return [row for row, final in zip(lane.rows, done, strict=True) if final or row.stage is Stage.OVER]


def forged(table: Attack, rows: Sequence[Row]) -> Iterable[Forged]:
    """The answers of these rows of the table, each with memory of its own."""
    places = torch.tensor([row.place for row in rows])
    columns = {name: table.pick(name, places).tolist() for name in _ANSWERED}
    image, before, after = (table.pick(name, places).cpu() for name in ("best", "before", "after"))
    for i, row in enumerate(rows):
        c = {name: column[i] for name, column in columns.items()}
        if not c["finite"]:
            ended = Ended.NON_FINITE
        elif c["already"]:
            ended = Ended.ALREADY
        elif c["done"]:
            ended = Ended.STOP
        else:
            ended = Ended.STEPS if row.moves >= row.steps or c["spent"] else Ended.TIME_LIMIT
        yield Forged(
            sample=row.sample,
            restart=row.restart,
            attack=table.name,
            ended=ended,
            fooled=c["fooled"],
            image=image[i].clone(),
            before=before[i].clone(),
            after=after[i].clone(),
            margin=c["margin"],
            merit=c["merit"],
            loss=c["loss"],
            step=c["best_t"],
            forward=row.forward,
            backward=row.backward,
            zero_gradients=c["zero_gradients"],
            judgements=c["judgements"],
            rises=c["rises"],
            first_loss=c["first_loss"],
        )
