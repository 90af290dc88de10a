"""A lane: the table of the rows of one attack on one model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from iguana_server.attacks.base import Attack
from iguana_server.engine.row import Row

_VIEWS = 256  # kept of a lane: to make one takes 0.1 ms


class Lane:
    """Rows lie packed at the front of columns that are allocated once and doubled when full."""

    def __init__(self, first: Attack, rows: Sequence[Row]) -> None:
        """Start with these rows."""
        self._storage = first
        self._views: dict[tuple[int, int], Attack] = {}  # columns change in place, so a view stays true
        self.rows: list[Row] = []
        self._place(rows)

    def __len__(self) -> int:
        """Rows in flight."""
        return len(self.rows)

    def table(self, start: int = 0, stop: int | None = None) -> Attack:
        """Rows start to stop as a table: views of the columns."""
        key = start, len(self.rows) if stop is None else stop
        if key not in self._views:
            if len(self._views) == _VIEWS:
                self._views = {}
            self._views[key] = self._storage.select(slice(*key))
        return self._views[key]

    def add(self, table: Attack, rows: Sequence[Row]) -> None:
        """Append rows."""
        n, capacity = len(self.rows), len(self._storage)
        if n + len(rows) > capacity:
            self._grow(max(2 * capacity, n + len(rows)))
        self._storage.update(slice(n, n + len(rows)), table)
        self._place(rows)

    def remove(self, leaving: set[Row]) -> None:
        """Take rows out; the rest stay packed."""
        self.arrange(lambda row: row in leaving)
        del self.rows[len(self.rows) - len(leaving) :]

    def arrange(self, group: Callable[[Row], int]) -> None:
        """Bring rows of the same group together, lower groups first, moving as few as possible."""
        groups = [group(row) for row in self.rows]
        if all(a <= b for a, b in itertools.pairwise(groups)):
            return
        wanted = sorted(groups)
        # A row already in a slot of its group's segment stays; the others trade places.
        misplaced = [i for i, g in enumerate(groups) if g != wanted[i]]
        movers = sorted(misplaced, key=lambda i: groups[i])
        source = torch.tensor(movers)
        target = torch.tensor(misplaced)
        self._storage.update(target, self._storage.select(source))
        moved = [self.rows[i] for i in movers]
        for place, row in zip(misplaced, moved, strict=True):
            self.rows[place] = row
            row.place = place

    def _place(self, rows: Sequence[Row]) -> None:
        for row in rows:
            row.place = len(self.rows)
            self.rows.append(row)

    def _grow(self, capacity: int) -> None:
        old, n = self._storage, len(self.rows)
        self._storage = old.select(torch.arange(capacity).clamp_max(max(n - 1, 0)))
        self._views = {}
