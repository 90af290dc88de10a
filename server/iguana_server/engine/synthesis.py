"""Jobs of generators, critics and translators: rows to be mapped, and pictures to be inverted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.engine.answer import Inverted
from iguana_server.engine.job import Job
from iguana_server.engine.row import GRADIENT_LOOKS, Row, Stage
from iguana_server.generators.inversion import Inversion


class MapJob(Job):
    """Rows to be mapped once: columns as the network takes them, rows on axis 0."""

    def __init__(self, columns: Sequence[Tensor], *, row_cost: int, **origin: Any) -> None:
        """Take columns; `row_cost` is the numbers that go into and come out of a row; see Job."""
        super().__init__(columns[0], **origin)
        self.columns, self._row_cost = tuple(columns), row_cost

    @property
    def row_cost(self) -> int:
        """One pass."""
        return self._row_cost

    @property
    def size(self) -> int:
        """One row a sample."""
        return len(self.images)

    def rows(self) -> Iterable[Row]:
        """One a sample."""
        return (Row(self, sample) for sample in range(self.size))


class InvertJob(Job):
    """Pictures whose codes are sought, each from several starts; the nearest counts, of equals the first."""

    def __init__(self, table: Inversion, restarts: int, *, row_cost: int, **origin: Any) -> None:
        """Take a table of which row restart * n + sample is a sample's start; see Job and MapJob."""
        super().__init__(table.target[: len(table) // restarts], **origin)
        self.table, self.restarts = table, restarts
        self._row_cost = GRADIENT_LOOKS * row_cost * (1 + int(table.steps.double().mean()))
        self._left = [restarts] * len(self.images)

    @property
    def row_cost(self) -> int:
        """Its moves."""
        return self._row_cost

    @property
    def size(self) -> int:
        """One row a start."""
        return len(self.table)

    @property
    def seated(self) -> bool:
        """Its rows stay for many passes."""
        return True

    def rows(self) -> Iterable[Row]:
        """First starts first."""
        n = len(self.images)
        for i, steps in enumerate(self.table.steps.tolist()):
            yield Row(self, i % n, i // n, Stage.MOVE, steps, gradient=True)

    def place(self, row: Row) -> int:
        """Return where a row stands in the table."""
        return row.restart * len(self.images) + row.sample

    def leave(self, row: Row) -> Inverted | None:
        """Note that a row is done; return the sample's answer, once all its starts are."""
        self._left[row.sample] -= 1
        if self._left[row.sample]:
            return None
        n, table = len(self.images), self.table
        tries = range(row.sample, len(table), n)
        sound = [i for i in tries if table.finite[i]]
        best = min(sound or tries, key=lambda i: (float(table.error[i]), i))
        return Inverted(
            sample=row.sample,
            restart=best // n,
            z=table.best_z[best].clone(),
            pixels=ops.float_to_pixels(table.best[best : best + 1].contiguous())[0],
            error=float(table.error[best]),
            first_error=float(table.first_error[best]),
            step=int(table.best_t[best]),
            finite=bool(sound),
        )


def gathered(rows: Sequence[Row]) -> list[Tensor]:
    """Return the columns of these rows of MapJobs, laid one after another."""
    lines = []
    for row in rows:
        assert isinstance(row.job, MapJob)  # noqa: S101 - the press keeps the kinds apart
        lines.append([column[row.sample] for column in row.job.columns])
    return [torch.stack(column) for column in zip(*lines, strict=True)]
