"""The engine with its thread: answers, cancels, deadlines, refusals, faults."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.engine import ClassifyJob, Ended, Engine, Forged, Looked, Progress
from iguana_server.engine.bench import Bench
from iguana_server.engine.meter import Silent
from iguana_server.engine.queue import Queue
from iguana_server.errors import DeadlineExceeded, InternalError, InvalidArgument, Overloaded, Unavailable
from iguana_server.models.base import Model
from tests.attacks.alone import climb
from tests.engine.bench_by_hand import job
from tests.nets import CLASSES, pictures, toy

PGD = ATTACKS["pgd"]


class Steps(Silent):
    """Counts passes, and what was given up."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.given_up: list[str] = []

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        self.rows.append(rows)

    def cancelled(self, phase: str) -> None:
        self.given_up.append(phase)


class Slow:
    """A model whose every look takes a while."""

    def __init__(self, model: Model, seconds: float) -> None:
        self._model, self._seconds = model, seconds
        self.spec, self.sizes = model.spec, model.sizes
        self.device, self.memory_format = model.device, model.memory_format

    def __call__(self, x: Tensor) -> Tensor:
        time.sleep(self._seconds)
        return self._model(x)


def _forged(answers: Sequence[object]) -> list[Forged]:
    return [answer for answer in answers if isinstance(answer, Forged)]


def _looks(images: Tensor, **options: Any) -> ClassifyJob:
    return ClassifyJob(images, **({"method": "test", "model": "toy", "caller": "me"} | options))


async def _slow_engine(seconds: float, **options: Any) -> tuple[Engine, Steps]:
    meter = Steps()
    return Engine({"toy": Slow(toy(), seconds)}, meter=meter, **options), meter  # type: ignore[dict-item]  # looks like one


async def test_classify_answers_what_the_model_says() -> None:
    model, images = toy(), pictures(20)
    with Engine({"toy": model}) as engine:
        answers = await engine.run(_looks(images))
    assert [answer.sample for answer in answers] == list(range(20))
    logits = torch.stack([answer.logits for answer in answers if isinstance(answer, Looked)])
    torch.testing.assert_close(logits, model(images), atol=1e-5, rtol=0)


async def test_an_attack_equals_the_table_run_by_hand() -> None:
    """One request of a bucket's size, so that even the passes are the same."""
    model, images = toy(bucket=8), pictures(8)
    options: dict[str, Any] = {"epsilon": 8 / 255, "alpha": 2 / 255, "steps": 10, "stop": NEVER}
    with Engine({"toy": model}) as engine:
        answers = _forged(await engine.run(job(model, PGD, images, "me", on_grid=True, **options)))
    table = climb(PGD.new(images, classes=CLASSES, on_grid=True, **options), model)
    assert torch.equal(torch.stack([a.image for a in answers]), table.best)
    assert [a.fooled for a in answers] == table.fooled.tolist()
    assert [a.margin for a in answers] == table.margin.tolist()
    assert all(a.forward == 11 and a.backward == 10 for a in answers)


async def test_first_success_leaves_early_and_never_spends_all() -> None:
    model, images = toy(), pictures(16)
    with Engine({"toy": model}) as engine:
        options = {"epsilon": 0.2, "alpha": 0.01, "steps": 40}
        early = _forged(await engine.run(job(model, PGD, images, "me", stop=FIRST_SUCCESS, **options)))
        full = _forged(await engine.run(job(model, PGD, images, "me", stop=NEVER, **options)))
    assert all(a.fooled and a.ended is Ended.STOP and a.forward < 40 for a in early)
    assert all(a.fooled and a.ended is Ended.STEPS and a.forward == 41 for a in full)
    assert all(f.margin >= e.margin for e, f in zip(early, full, strict=True))


async def test_rows_with_nothing_to_do_end_at_step_0() -> None:
    """Already wrong, or already the target: counted apart, and unchanged."""
    model, images = toy(), pictures(8)
    seen = model(images).argmax(1)
    with Engine({"toy": model}) as engine:
        wrong = _forged(await engine.run(job(model, PGD, images, "me", label=(seen + 1) % CLASSES)))
        reached = _forged(await engine.run(job(model, PGD, images, "me", label=seen, targeted=True)))
    for answers in (wrong, reached):
        assert [a.outcome for a in answers] == ["already"] * 8
        assert all(a.step == 0 and a.forward == 1 for a in answers)
        assert torch.equal(torch.stack([a.image for a in answers]), images)


async def test_cancelled_rows_leave_within_one_step() -> None:
    engine, meter = await _slow_engine(0.02)
    model, images = toy(), pictures(4)
    with engine:
        task = asyncio.create_task(engine.run(job(model, PGD, images, "me", steps=10_000, stop=NEVER)))
        while len(meter.rows) < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen = len(meter.rows)
        await asyncio.sleep(0.3)
        assert len(meter.rows) - seen <= 1
        assert meter.given_up == ["running"]


async def test_leaving_a_stream_cancels_it() -> None:
    engine, meter = await _slow_engine(0.01)
    with engine:
        async with aclosing(
            engine.stream(job(toy(), PGD, pictures(2), "me", steps=10_000, stop=NEVER, report_every=1))
        ) as events:
            async for event in events:
                assert isinstance(event, Progress)
                break
        await asyncio.sleep(0.2)
        seen = len(meter.rows)
        await asyncio.sleep(0.2)
        assert len(meter.rows) == seen


async def test_an_expired_request_never_reaches_the_device() -> None:
    engine, meter = await _slow_engine(0.2)
    with engine:
        first = asyncio.create_task(engine.run(_looks(pictures(32))))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded):
            await engine.run(_looks(pictures(1), caller="late", deadline=time.monotonic() + 0.01))
        await first
        await engine.run(_looks(pictures(1)))
    assert sum(meter.rows) == 33
    assert meter.given_up == ["queued"]


async def test_a_request_that_expires_while_another_model_works_never_reaches_the_device() -> None:
    looked: list[int] = []

    class Noted(Slow):
        def __call__(self, x: Tensor) -> Tensor:
            looked.append(len(x))
            return self._model(x)

    models = {"slow": Slow(toy(name="slow"), 0.3), "toy": Noted(toy(), 0)}
    meter = Steps()
    with Engine(models, meter=meter) as engine:  # type: ignore[arg-type]  # they look like models
        held: list[asyncio.Task[Any]] = []
        for i in range(2):  # the engine is in the first's pass, or about to be
            held.append(asyncio.create_task(engine.run(_looks(pictures(1), model="slow", caller=str(i)))))
            await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded):
            await engine.run(_looks(pictures(1), deadline=time.monotonic() + 0.1))
        await asyncio.gather(*held)
    assert looked == []
    assert meter.given_up == ["queued"]


async def test_a_deadline_frees_rows_inside_an_attack() -> None:
    engine, meter = await _slow_engine(0.02)
    with engine:
        with pytest.raises(DeadlineExceeded):
            await engine.run(
                job(toy(), PGD, pictures(2), "me", steps=10_000, stop=NEVER, deadline=time.monotonic() + 0.2)
            )
        seen = len(meter.rows)
        await asyncio.sleep(0.2)
    assert 1 <= seen <= 12  # ten, on a machine that has nothing else to do
    assert len(meter.rows) - seen <= 1
    assert meter.given_up == ["running"]


async def test_a_time_limit_delivers_the_best_so_far() -> None:
    engine, _ = await _slow_engine(0.02)
    with engine:
        options: dict[str, Any] = {
            "steps": 10_000,
            "stop": NEVER,
            "epsilon": 0.2,
            "alpha": 0.02,
            "time_limit_s": 0.3,
        }
        answers = _forged(await engine.run(job(toy(), PGD, pictures(4), "me", **options)))
    assert [a.ended for a in answers] == [Ended.TIME_LIMIT] * 4
    assert all(a.fooled and 5 <= a.forward <= 20 for a in answers)


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    engine, _ = await _slow_engine(0.1, max_cost=40 * 432)
    with engine:
        tasks = [asyncio.create_task(engine.run(_looks(pictures(20), caller=f"{i}"))) for i in range(6)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [d for d in done if isinstance(d, Overloaded)]
    assert refused
    assert len(refused) + sum(isinstance(d, list) for d in done) == 6
    assert all(0.1 <= r.retry_after_s <= 60 for r in refused)


async def test_a_request_that_could_never_fit_is_invalid() -> None:
    engine, _ = await _slow_engine(0, max_cost=431)
    with (
        engine,
        pytest.raises(InvalidArgument, match="want at most 431 pixels x steps in one request, got 432"),
    ):
        await engine.run(_looks(pictures(1)))


async def test_a_hog_does_not_lock_out_another_caller() -> None:
    """A caller with 200 long rows, then one with a short one: the short one is served at once."""
    engine, meter = await _slow_engine(0.01)
    with engine:
        hog = asyncio.create_task(
            engine.run(job(toy(), PGD, pictures(200), "hog", steps=500, stop=NEVER, strict=False))
        )
        while len(meter.rows) < 5:
            await asyncio.sleep(0.005)
        before = len(meter.rows)
        await engine.run(job(toy(), PGD, pictures(4, seed=1), "guest", steps=5, stop=NEVER, strict=False))
        assert len(meter.rows) - before <= 2 * 6 + 4
        hog.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hog


async def test_a_classification_waits_for_two_passes_at_most() -> None:
    """The bench is full of long attacks of many callers, the classifier's own among them."""
    engine, meter = await _slow_engine(0.01, max_rows=64)
    options: dict[str, Any] = {"steps": 2000, "stop": NEVER, "strict": False}
    with engine:
        hogs = [
            asyncio.create_task(engine.run(job(toy(), PGD, pictures(100), caller, **options)))
            for caller in ("one", "two", "three", "me")
        ]
        while len(meter.rows) < 5:
            await asyncio.sleep(0.005)
        for _ in range(3):
            before = len(meter.rows)
            await engine.run(_looks(pictures(1), caller="me", strict=False))
            assert len(meter.rows) - before <= 4
        before = len(meter.rows)
        await engine.run(job(toy(), PGD, pictures(1), "guest", steps=3, stop=NEVER, strict=False))
        assert len(meter.rows) - before <= 12
        for hog in hogs:
            hog.cancel()
        await asyncio.gather(*hogs, return_exceptions=True)


async def test_strict_looks_go_in_whole_passes() -> None:
    """Three of the seven wait for one that comes, in place of an empty row for it and one for themselves."""
    meter, queue = Steps(), Queue(1 << 40)
    bench = Bench(toy(bucket=4), 1024, meter)
    for n in (7, 1):
        queue.put(_looks(pictures(n)))
        bench.admit(queue, 0.0)
        bench.turn()
    assert meter.rows == [4, 4]
    assert not bench.rows()


async def test_the_earliest_deadline_of_a_caller_goes_first() -> None:
    engine, _ = await _slow_engine(0.02)
    order: list[str] = []
    now = time.monotonic()

    async def one(name: str, deadline: float | None) -> None:
        await engine.run(_looks(pictures(32), deadline=deadline, strict=False))
        order.append(name)

    asked = {"first": None, "whenever": None, "late": now + 60, "soon": now + 50}
    waiting = [asyncio.create_task(one(name, deadline)) for name, deadline in asked.items()]
    await asyncio.sleep(0)  # all are in the queue before the engine looks at it
    with engine:
        await asyncio.gather(*waiting)
    assert order.index("soon") < order.index("late") < order.index("whenever")


async def test_restarts_are_rows_and_the_first_that_succeeds_counts() -> None:
    """The same answer, whichever try was quicker: as if the tries were made one after another."""
    model, images = toy(), pictures(6)
    options: dict[str, Any] = {"epsilon": 0.02, "alpha": 0.004, "steps": 5, "random_start": True, "seed": 3}
    with Engine({"toy": model}) as engine:
        many = _forged(await engine.run(job(model, PGD, images, "me", restarts=4, **options)))
        best = _forged(await engine.run(job(model, PGD, images, "me", restarts=4, stop=NEVER, **options)))
        again = _forged(await engine.run(job(model, PGD, images, "me", restarts=4, **options)))
    for a, b in zip(many, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert (a.restart, a.step, a.forward, a.backward) == (b.restart, b.step, b.forward, b.backward)
    assert {a.restart for a in many} != {0}
    for a, b in zip(many, best, strict=True):
        assert a.fooled == b.fooled
        assert b.margin >= a.margin


async def test_a_time_limit_spares_the_tries_that_have_not_begun() -> None:
    engine, meter = await _slow_engine(0.02)
    options: dict[str, Any] = {"steps": 10_000, "stop": NEVER, "random_start": True, "restarts": 32}
    with engine:
        answers = _forged(await engine.run(job(toy(), PGD, pictures(64), "me", time_limit_s=0.2, **options)))
    assert len(answers) == 64
    assert len(meter.rows) <= 40


async def test_a_try_that_fails_does_not_fail_the_sample() -> None:
    """A model that gives NaN for some random starts: another start may do."""

    class Fragile(Slow):
        def __call__(self, x: Tensor) -> Tensor:
            odd = (x[:, 0, 0, 0] * 255 % 1).mul(10).floor() % 2 == 1
            return self._model(x) + torch.where(odd, torch.nan, 0.0)[:, None]

    options: dict[str, Any] = {
        "epsilon": 0.2,
        "alpha": 0.0,
        "steps": 2,
        "random_start": True,
        "on_grid": False,
    }
    with Engine({"toy": Fragile(toy(), 0)}) as engine:  # type: ignore[dict-item]
        alone = _forged(await engine.run(job(toy(), PGD, pictures(16), "me", seed=1, **options)))
        tried = _forged(await engine.run(job(toy(), PGD, pictures(16), "me", seed=1, restarts=8, **options)))
    assert any(a.outcome == "failed" for a in alone)
    assert all(a.outcome != "failed" for a in tried)


async def test_a_job_that_cannot_be_seated_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A defect between the queue and the lanes fails every caller, not the one alone."""
    with Engine({"toy": toy()}) as engine:
        broken = job(toy(), PGD, pictures(2), "me", steps=3)
        broken.plan.columns["no such column"] = torch.zeros(2)
        with pytest.raises(InternalError):
            await asyncio.wait_for(engine.run(broken), 5)
    assert "no such column" in caplog.text


async def test_a_failed_job_is_not_held_by_its_error() -> None:
    """Its images go as soon as its caller has been told."""
    engine, _ = await _slow_engine(0.01)
    with engine:
        one = job(toy(), PGD, pictures(2), "me", steps=10_000, stop=NEVER, deadline=time.monotonic() + 0.05)
        gone = weakref.ref(one)
        with pytest.raises(DeadlineExceeded):
            await engine.run(one)
        await asyncio.sleep(0.1)
        gc.disable()
        try:
            del one
            assert gone() is None
        finally:
            gc.enable()


async def test_a_row_of_nan_fails_alone() -> None:
    """A model that cannot judge dark pictures."""

    class Dark(Slow):
        def __call__(self, x: Tensor) -> Tensor:
            dark = x.amax((1, 2, 3)) == 0
            return self._model(x) + torch.where(dark, torch.nan, 0.0)[:, None]

    model, images = toy(), pictures(5)
    images[2] = 0
    with Engine({"toy": Dark(model, 0)}) as engine:  # type: ignore[dict-item]
        answers = _forged(
            await engine.run(job(model, PGD, images, "me", epsilon=0.2, alpha=0.1, stop=NEVER, steps=5))
        )
    assert [a.outcome for a in answers] == ["fooled", "fooled", "failed", "fooled", "fooled"]
    assert answers[2].ended is Ended.NON_FINITE


async def test_a_defect_fails_every_caller_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Slow):
        def __call__(self, x: Tensor) -> Tensor:
            time.sleep(0.1)
            raise RuntimeError("device lost")

    failures: list[str] = []
    engine = Engine({"toy": Broken(toy(), 0)}, on_failure=lambda: failures.append("told"))  # type: ignore[dict-item]
    with engine:
        done = await asyncio.gather(
            *(engine.run(_looks(pictures(20), caller=str(i))) for i in range(5)), return_exceptions=True
        )
        assert [type(d) for d in done] == [InternalError] * 5
        with pytest.raises(Unavailable):
            await engine.run(_looks(pictures(1)))
    assert failures == ["told"]
    assert engine.failed
    assert "device lost" in caplog.text


async def test_stopping_tells_those_who_wait() -> None:
    engine, _ = await _slow_engine(0.05)
    engine.start()
    task = asyncio.create_task(engine.run(job(toy(), PGD, pictures(2), "me", steps=10_000, stop=NEVER)))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(engine.stop)
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable):
        await engine.run(_looks(pictures(1)))


async def test_progress_is_reported_every_so_many_moves() -> None:
    model = toy()
    steps: list[int] = []
    with Engine({"toy": model}) as engine:
        one = job(model, PGD, pictures(1), "me", steps=10, stop=NEVER, report_every=5)
        async for event in engine.stream(one):
            if isinstance(event, Progress):
                steps.append(event.step)
                assert event.steps == 10
    assert set(steps) <= {5, 10}


async def test_unlike_requests_share_passes() -> None:
    """24 requests of 4 attacks: far fewer passes than one after another."""
    model, meter = toy(bucket=8, max_batch=64), Steps()
    names = ["pgd", "mifgsm", "pgdl2", "apgd"]
    with Engine({"toy": model}, meter=meter) as engine:
        jobs = [
            job(
                model,
                ATTACKS[names[i % 4]],
                pictures(2, seed=i),
                f"{i}",
                steps=10 + i % 3,
                stop=NEVER,
                strict=False,
            )
            for i in range(24)
        ]
        await asyncio.gather(*(engine.run(one) for one in jobs))
    alone = sum(10 + i % 3 + 1 for i in range(24))
    assert len(meter.rows) <= alone / 5


async def test_overload_is_refused_at_the_door_and_not_by_deadlines() -> None:
    """Three times as much as can be done, for 3 s: nearly all that is let in is answered in time."""
    engine, _ = await _slow_engine(0.02)
    done: list[object] = []

    async def call(i: int) -> None:
        try:
            await engine.run(
                _looks(pictures(32), caller=f"{i % 4}", strict=False, deadline=time.monotonic() + 1)
            )
        except (Overloaded, DeadlineExceeded) as error:
            done.append(error)
        else:
            done.append(None)

    with engine:
        warm = [engine.run(_looks(pictures(32), caller=f"{i % 4}", strict=False)) for i in range(60)]
        await asyncio.gather(*warm)  # the engine learns its rate
        calls = []
        for i in range(450):
            calls.append(asyncio.create_task(call(i)))
            await asyncio.sleep(1 / 150)
        await asyncio.gather(*calls)
    late = sum(isinstance(d, DeadlineExceeded) for d in done)
    refused = sum(isinstance(d, Overloaded) for d in done)
    answered = sum(d is None for d in done)
    assert refused > 100
    assert late <= 0.1 * (late + answered), (answered, late, refused)


async def test_the_rate_of_work_counts_the_steps_in_which_nothing_leaves() -> None:
    """A job of 50 moves leaves in one of its 51 turns; all of them took time."""
    engine, _ = await _slow_engine(0.01)
    with engine:
        one = job(toy(), PGD, pictures(8), "me", steps=50, stop=NEVER, strict=False)
        begun = time.monotonic()
        await engine.run(one)
        took = time.monotonic() - begun
    # The engine has ended: its last turn, whose answer came before its end, is counted.
    pace = engine._queue._paces["toy"]
    assert 0.5 <= pace.busy_s / pace.left * one.cost / took <= 2


async def test_moves_of_a_row_that_is_given_up_count_as_work_done() -> None:
    """Else a storm of cancels would look like slowness to the queue, which refuses by the rate it has seen."""
    model, queue = toy(), Queue(1 << 40)
    bench, cancelled = Bench(model, 64, Silent()), job(model, PGD, pictures(2), "me", steps=100, stop=NEVER)
    queue.put(cancelled)
    bench.admit(queue, 0.0)
    assert [bench.turn() for _ in range(3)] == [0, 0, 0]
    cancelled.cancelled = True
    bench.admit(queue, 0.0)
    assert bench.turn() == 2 * 3 * cancelled.pixels
    assert bench.turn() == 0
