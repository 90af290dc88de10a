"""Rows lie packed, and all their columns go where they go."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.attacks.apgd import APGD
from iguana_server.engine.lane import Lane
from iguana_server.engine.row import Row
from tests.nets import CLASSES, pictures


def _table(ids: list[int]) -> APGD:
    """A table whose every column tells its row's id."""
    table = APGD.new(pictures(len(ids)), classes=CLASSES)
    for name in table.columns():
        column = getattr(table, name)
        value = torch.tensor(ids).view(-1, *[1] * (column.dim() - 1))
        column.copy_(value if column.dtype != torch.bool else value % 2 == 1)
    return table


def _rows(ids: list[int]) -> list[Row]:
    return [Row(None, sample) for sample in ids]  # type: ignore[arg-type]  # a lane never asks for the job


def _check(lane: Lane) -> None:
    ids = torch.tensor([row.sample for row in lane.rows])
    assert [row.place for row in lane.rows] == list(range(len(lane)))
    table = lane.table()
    assert len(table) == len(lane)
    for name in table.columns():
        column = getattr(table, name)
        seen = column.flatten(1)[:, -1] if column.dim() > 1 else column
        assert torch.equal(seen.long(), ids % 2 if column.dtype == torch.bool else ids), name
    assert table.x0.is_contiguous(memory_format=torch.channels_last)


@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 40))), min_size=1, max_size=5))
def test_columns_travel_with_their_rows(script: list[tuple[int, set[int]]]) -> None:
    """Any order of joining, sorting into groups and leaving."""
    lane: Lane | None = None
    fresh = 0
    for joining, leaving in script:
        ids = list(range(fresh, fresh + joining))
        fresh += joining
        rows = _rows(ids)
        if lane is None:
            lane = Lane(_table(ids), rows)
        else:
            lane.add(_table(ids), rows)
        _check(lane)
        lane.arrange(lambda row: row.sample % 3)
        groups = [row.sample % 3 for row in lane.rows]
        assert groups == sorted(groups)
        _check(lane)
        gone = {row for row in lane.rows if row.sample in leaving}
        kept = {row for row in lane.rows if row not in gone}
        lane.remove(gone)
        assert set(lane.rows) == kept
        _check(lane)


def test_a_part_of_a_lane_is_a_view() -> None:
    """What an attack writes into its table is written into the lane."""
    lane = Lane(_table([1, 2, 3]), _rows([1, 2, 3]))
    lane.table(1, 3).t.fill_(7)
    assert lane.table().t.tolist() == [1, 7, 7]
