"""The queue: bounded, fair, and empty in the end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iguana_server.engine import ClassifyJob
from iguana_server.engine.queue import Clocks, Queue
from iguana_server.engine.row import Row
from iguana_server.errors import Overloaded, Unavailable
from tests.nets import pictures

PIXELS = 432


def _job(n: int, caller: str = "me", model: str = "toy", **options: Any) -> ClassifyJob:
    return ClassifyJob(pictures(n), method="test", model=model, caller=caller, **options)


def _take_all(queue: Queue, caller: str = "me") -> list[Row]:
    rows = []
    while (row := queue.take("toy", caller, seated=False)) is not None:
        rows.append(row)
    return rows


async def test_the_cost_of_what_waits_is_bounded_and_returns_to_0() -> None:
    queue = Queue(10 * PIXELS)
    queue.put(_job(6))
    queue.put(_job(4))
    with pytest.raises(
        Overloaded, match=f"want at most {10 * PIXELS} pixels x steps waiting, got {10 * PIXELS} \\+ {PIXELS}"
    ):
        queue.put(_job(1))
    assert len(_take_all(queue)) == 10
    assert queue.cost == 0
    queue.put(_job(10))


async def test_dead_and_expired_jobs_are_dropped_and_free_their_place() -> None:
    queue = Queue(100 * PIXELS)
    left, late, live = _job(5), _job(5, deadline=time.monotonic() - 1), _job(5)
    for job in (left, late, live):
        queue.put(job)
    left.cancelled = True
    assert set(queue.drop_dead(time.monotonic())) == {left, late}
    assert queue.cost == 5 * PIXELS
    assert [row.job for row in _take_all(queue)] == [live] * 5


async def test_a_job_that_expires_half_way_gives_back_the_rest() -> None:
    queue = Queue(100 * PIXELS)
    job = _job(5, deadline=time.monotonic() + 0.05)
    queue.put(job)
    assert queue.take("toy", "me", seated=False) is not None
    assert queue.cost == 4 * PIXELS
    assert queue.drop_dead(time.monotonic() + 1) == [job]
    assert queue.cost == 0
    assert queue.callers("toy", seated=False) == []


async def test_a_closed_queue_takes_nothing() -> None:
    queue = Queue(100 * PIXELS)
    queue.put(_job(1))
    queue.close(Unavailable("the server is stopping"))
    assert _take_all(queue) == []
    with pytest.raises(Unavailable, match="stopping"):
        queue.put(_job(1))


async def test_the_refused_are_told_a_time_that_grows_with_the_work() -> None:
    queue = Queue(100 * PIXELS)
    queue.done({"toy": 20 * PIXELS}, 2.0)
    queue.put(_job(100))
    with pytest.raises(Overloaded) as refused:
        queue.put(_job(1))
    assert refused.value.retry_after_s == pytest.approx(5)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1), st.integers(1, 20))
def test_callers_are_served_evenly(waiting: dict[str, int], limit: int) -> None:
    """After any number of picks no caller with rows left is more than one look behind another."""

    async def go() -> None:
        clocks = Clocks()
        rows = [row for caller, n in waiting.items() for row in _job(n, caller).rows()]
        served = dict.fromkeys(waiting, 0)
        clocks.enter(waiting)
        while rows:
            picked = clocks.pick(rows, limit)
            assert len(picked) == len(set(picked)) == min(limit, len(rows))
            for row in picked:
                clocks.charge(row.job.caller, 1)
                served[row.job.caller] += 1
                rows.remove(row)
            left = {row.job.caller for row in rows}
            behind = [served[caller] for caller in left]
            if behind:
                assert max(served.values()) - min(behind) <= 1 or max(served.values()) in behind
                assert max(behind) - min(behind) <= 1

    asyncio.run(go())


def test_idling_saves_nothing_up() -> None:
    clocks = Clocks()
    clocks.enter(["busy"])
    clocks.charge("busy", 1000)
    clocks.enter(["busy", "new"])
    assert clocks.of("new") == clocks.of("busy") == 1000
    clocks.charge("busy", 1000)
    clocks.enter(["busy"])
    clocks.enter(["busy", "new"])
    assert clocks.of("new") == 2000


async def test_what_could_not_begin_in_time_is_refused() -> None:
    """100 looks wait, 10 a second leave: who has 15 s is refused, who has 30 s waits, another caller may."""
    queue = Queue(1000 * PIXELS)
    queue.done({"toy": 20 * PIXELS}, 2.0)
    queue.put(_job(100))
    now = time.monotonic()
    with pytest.raises(Overloaded, match="want a deadline of 20 s or later"):
        queue.put(_job(1, deadline=now + 15))
    queue.put(_job(1, deadline=now + 30))
    queue.put(_job(1, caller="another", deadline=now + 1))


async def test_without_evidence_nothing_is_refused_for_its_deadline() -> None:
    queue = Queue(1000 * PIXELS)
    queue.put(_job(100))
    queue.put(_job(1, deadline=time.monotonic() + 0.001))


async def test_work_is_counted_in_the_seconds_of_its_model() -> None:
    """As many numbers wait for a fast network as for a slow one: 0.1 s and 10 s. Neither waits for the other."""
    queue = Queue(1000 * PIXELS)
    queue.done({"fast": 2000 * PIXELS, "slow": 20 * PIXELS}, 2.0)
    queue.put(_job(100, model="fast"))
    queue.put(_job(100, model="slow"))
    now = time.monotonic()
    queue.put(_job(1, model="fast", deadline=now + 1))
    with pytest.raises(Overloaded, match="want a deadline of 20 s or later") as refused:
        queue.put(_job(1, model="slow", deadline=now + 1))
    assert refused.value.retry_after_s == pytest.approx(5)
