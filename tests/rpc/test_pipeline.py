"""Pipelines: every item is answered or refused, and none holds the others up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from iguana.v1 import attack_pb2, classify_pb2, error_pb2
from iguana_server.engine.answer import Event
from iguana_server.engine.job import Job
from iguana_server.errors import InvalidArgument, Overloaded
from iguana_server.rpc.pipeline import pipeline
from tests.rpc.service import LIMITS, Service, serving, tensors
from tests.rpc.test_services import quiet

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Item:
    id: str


async def each(names: Iterable[str]) -> AsyncIterator[Item]:
    for name in names:
        yield Item(name)


def refuse(name: str, failure: error_pb2.Failure) -> str:
    return f"{name} refused: {failure.message}"


async def test_replies_come_as_they_are_ready() -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def answer(item: Item) -> str:
        await gates[item.id].wait()
        return item.id

    got = []
    gates["b"].set()
    async with aclosing(pipeline(each("abc"), answer, refuse, most=3)) as replies:
        async for reply in replies:
            got.append(reply)
            gates["c" if reply == "b" else "a"].set()
    assert got == ["b", "c", "a"]


async def test_no_more_items_are_read_than_may_fly() -> None:
    begun: list[str] = []
    gate = asyncio.Event()

    async def answer(item: Item) -> str:
        begun.append(item.id)
        await gate.wait()
        return item.id

    async with aclosing(pipeline(each("abcdef"), answer, refuse, most=2)) as replies:
        first = asyncio.ensure_future(anext(replies))
        await asyncio.sleep(0.01)
        assert begun == ["a", "b"]
        gate.set()
        assert await first == "a"
        await asyncio.sleep(0.01)
        assert begun == ["a", "b"]  # an answer that was not taken still counts
        assert [reply async for reply in replies] == ["b", "c", "d", "e", "f"]


async def test_bad_items_are_refused_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(item: Item) -> str:
        if item.id == "bad":
            raise InvalidArgument("images", "want 1, got 0")
        if item.id == "full":
            raise Overloaded("queue: full", 1)
        if item.id == "broken":
            raise ZeroDivisionError("secret")
        return item.id

    items = each(["bad", "x" * 65, "full", "broken", "good"])
    got = [reply async for reply in pipeline(items, answer, refuse, most=9)]
    assert len(got) == 5
    assert "bad refused: images: want 1, got 0" in got
    assert f"{64 * 'x'} refused: id: want at most 64 characters, got 65" in got
    assert "full refused: queue: full" in got
    assert "good" in got
    assert [reply for reply in got if reply.startswith("broken refused: internal error, id=")]
    assert not any("secret" in reply for reply in got)
    assert "secret" in caplog.text


async def test_id_may_come_again_once_it_was_answered() -> None:
    async def answer(item: Item) -> str:
        await asyncio.sleep(0)
        return item.id

    twice = [reply async for reply in pipeline(each(["a", "a"]), answer, refuse, most=2)]
    assert sorted(twice) == ["a", "a refused: id: want one that no item in flight has, got 'a' again"]
    assert [reply async for reply in pipeline(each(["a", "a"]), answer, refuse, most=1)] == ["a", "a"]


async def test_closing_cancels_what_flies() -> None:
    cancelled: list[str] = []

    async def answer(item: Item) -> str:
        if item.id == "quick":
            return item.id
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(item.id)
            raise
        return item.id

    replies = pipeline(each(["a", "b", "quick"]), answer, refuse, most=5)
    assert await anext(replies) == "quick"
    await replies.aclose()
    assert sorted(cancelled) == ["a", "b"]


async def test_items_that_fail_to_come_end_the_stream_with_their_error() -> None:
    cancelled = asyncio.Event()

    async def items() -> AsyncIterator[Item]:
        yield Item("a")
        raise InvalidArgument("request", "want a message")

    async def answer(item: Item) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return item.id

    with pytest.raises(InvalidArgument, match="request: want a message"):
        [_ async for _ in pipeline(items(), answer, refuse, most=5)]
    assert cancelled.is_set()


def attack(steps: int = 3, epsilon: float = 0.1) -> attack_pb2.AttackRequest:
    pgd = attack_pb2.Pgd(steps=[steps], epsilon=[epsilon])
    return attack_pb2.AttackRequest(
        model="small", images=tensors(1), pgd=pgd, stop_on=attack_pb2.STOP_ON_NEVER
    )


async def test_stream_answers_what_the_calls_answer(service: Service) -> None:
    requests = [attack(steps) for steps in range(1, 12)]
    items = [attack_pb2.StreamAttackRequest(id=str(i), request=r) for i, r in enumerate(requests)]
    items.insert(3, attack_pb2.StreamAttackRequest(id="bad", request=attack(epsilon=8)))
    got = {reply.id: reply async for reply in service.attack.StreamAttack(iter(items))}
    assert len(got) == len(items)
    bad = got.pop("bad").failure
    assert bad.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert bad.reason == error_pb2.ERROR_REASON_INVALID_FIELD
    assert [v.field for v in bad.violations] == ["request.pgd.epsilon"]
    for i, request in enumerate(requests):
        assert got[str(i)].response == await service.attack.Attack(request)


async def test_classifications_stream_too(service: Service) -> None:
    requests = [
        classify_pb2.ClassifyRequest(model=m, images=tensors(2, seed=i))
        for i, m in enumerate(["small", "no"])
    ]
    items = [classify_pb2.StreamClassifyRequest(id=r.model, request=r) for r in requests]
    got = {reply.id: reply async for reply in service.classify.StreamClassify(iter(items))}
    assert got["small"].response == await service.classify.Classify(requests[0])
    assert got["no"].failure.code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_caller_that_leaves_frees_all_items(service: Service) -> None:
    call: Any = service.attack.StreamAttack()
    for i in range(LIMITS.max_stream_items):
        await call.write(attack_pb2.StreamAttackRequest(id=str(i), request=attack(50)))
    while not any(bench.rows() for bench in service.engine._benches):
        await asyncio.sleep(0.001)
    call.cancel()
    await quiet(service)


async def test_caller_that_writes_and_never_reads_is_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answers fill the connection's buffers, then no more items are read, so none is worked on."""
    narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16))
    async with serving(options=narrow) as service:
        await _write_without_reading(service, monkeypatch)


async def _write_without_reading(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    stream = service.engine.stream

    def counted(job: Job) -> AsyncGenerator[Event]:
        nonlocal begun
        begun += 1
        return stream(job)

    monkeypatch.setattr(service.engine, "stream", counted)
    call: Any = service.attack.StreamAttack()
    request = attack(1)
    request.images.extend(tensors(5))
    request.return_clean = True
    many = 20_000

    async def write() -> None:
        for i in range(many):
            await call.write(attack_pb2.StreamAttackRequest(id=str(i), request=request))

    writing = asyncio.create_task(write())
    seen = 0
    while begun == 0 or begun != seen:  # until nothing goes on any more
        seen = begun
        await asyncio.sleep(0.5)
    assert begun < many / 100
    assert not writing.done()
    call.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await quiet(service)
