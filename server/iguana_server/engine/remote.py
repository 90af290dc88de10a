"""An attack whose looks are answered from outside, a turn at a time: the same rows, stages and bits as on a bench."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server.engine.answer import Forged
from iguana_server.engine.job import AttackJob
from iguana_server.engine.lane import Lane
from iguana_server.engine.row import Stage
from iguana_server.engine.seat import forged, over, seats_of
from iguana_server.engine.step import heard


class Remote:
    """The rows of one job on a model that is not here; its attack must do without gradients.

    `ask` and `tell` take turns until no row is left. What they say is a function of the job and of what was
    told before: nothing else enters it.
    """

    def __init__(self, job: AttackJob, classes: int, layout: torch.memory_format) -> None:
        """Lay the rows out, images in this memory format, for a model of so many classes."""
        assert not job.plan.attack.gradient and job.plan.restarts == 1  # noqa: S101, PT018 - the contract's
        rows = list(job.rows())
        images = job.images[torch.tensor([row.sample for row in rows])].contiguous(memory_format=layout)
        self._lane = Lane(job.table(rows, images, classes), rows)

    @property
    def looks(self) -> int:
        """Most pictures that can be asked for from here on."""
        return sum(row.steps - row.moves + 1 + (row.stage is Stage.OPEN) for row in self._lane.rows)

    def __len__(self) -> int:
        """Rows that are not done."""
        return len(self._lane)

    def ask(self) -> tuple[list[int], Tensor]:
        """Return one picture for each row that is left: its sample, and the pixels [m, C, H, W]."""
        self._seats = seats_of(self._lane, set(self._lane.rows))
        self._parts = [seat.part() for seat in self._seats]
        return [row.sample for row in self._lane.rows], torch.cat([part.images for part in self._parts])

    def tell(self, logits: Tensor) -> list[Forged]:
        """Move every row by the logits [m, K] of what was asked; return the answers of those that are done."""
        said = torch.split(logits, [len(part) for part in self._parts])
        for seat, part, own in zip(self._seats, self._parts, said, strict=True):
            for row in seat.rows:
                row.forward += 1
            seat.advance(part.images, heard(part, own))
        leaving = over(self._lane)
        answers = list(forged(self._lane.table(), leaving)) if leaving else []
        self._lane.remove(set(leaving))
        return answers
