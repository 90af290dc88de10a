"""Turn a bench by hand, without a thread, and keep the last state of every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import Attack
from iguana_server.engine import AttackJob, Plan
from iguana_server.engine.bench import Bench
from iguana_server.engine.job import Job
from iguana_server.engine.meter import Silent
from iguana_server.engine.queue import Queue
from iguana_server.engine.row import Row
from iguana_server.engine.seat import forged
from iguana_server.models.base import Model


class Recorder:
    """All columns of every row that left, by (caller, sample, restart)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[tuple[str, int, int], dict[str, Tensor]] = {}

        def record(table: Attack, rows: Sequence[Row]) -> Any:
            for row in rows:
                columns = {name: getattr(table, name)[row.place].clone() for name in table.columns()}
                self.rows[row.job.caller, row.sample, row.restart] = columns
            return forged(table, rows)

        monkeypatch.setattr("iguana_server.engine.bench.forged", record)


def job(model: Model, attack: type[Attack], images: Tensor, caller: str, **options: Any) -> AttackJob:
    """An attack job; options that are not of Plan or Job are columns, one value or one a sample."""
    plan = {
        k: options.pop(k)
        for k in ("loss_name", "on_grid", "restarts", "time_limit_s", "report_every")
        if k in options
    }
    more = {k: options.pop(k) for k in ("strict", "deadline") if k in options}
    n = len(images)
    columns = {
        k: v if isinstance(v, Tensor) and v.dim() else torch.as_tensor(v).expand(n).clone()
        for k, v in options.items()
    }
    return AttackJob(
        images,
        Plan(attack=attack, columns=columns, **plan),
        method="test",
        model=model.spec.name,
        caller=caller,
        **more,
    )


def turn(model: Model, arrivals: Sequence[tuple[int, Job]], max_rows: int = 1024) -> None:
    """Run jobs to their end; each arrives at its turn."""
    queue, seat = Queue(1 << 40), Bench(model, max_rows, Silent())
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    now = 0
    while waiting or queue.cost or seat.rows():
        while waiting and waiting[0][0] <= now:
            queue.put(waiting.pop(0)[1])
        seat.admit(queue, 0.0)
        seat.turn()
        now += 1
