from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

from iguana import (
    AsyncClient,
    AttackAnswer,
    AttackItem,
    Classifications,
    ClassifyItem,
    Client,
    DeadlineExceeded,
    IguanaError,
    InvalidArgument,
    Overloaded,
    Unavailable,
    UnknownParameter,
)
from tests.client.scripted import Scripted, serve

IDS = ["a", "bad-1", "busy-1", "b", "break-1", "c", "break-2", "busy-2", "d"]


def items(cat: bytes, ids: list[str]) -> Iterator[tuple[str, AttackItem]]:
    return ((i, {"images": cat, "target": 1}) for i in ids)


def check_answers(answers: dict[str, AttackAnswer | IguanaError]) -> None:
    assert sorted(answers) == sorted(IDS)
    refused = answers.pop("bad-1")
    assert isinstance(refused, InvalidArgument)
    assert refused.reason == "invalid_field"
    assert refused.violations == (("pgd.epsilon", "want [0, 1], got 8"),)
    for answer in answers.values():
        assert isinstance(answer, AttackAnswer)
        assert answer[0].fooled


def test_a_pipeline_outlives_refusals_full_queues_and_breaks(client: Client, cat: bytes) -> None:
    answers = list(client.stream_attack(items(cat, IDS), in_flight=4))
    assert len(answers) == len(IDS)
    check_answers(dict(answers))


async def test_an_async_pipeline_outlives_them_too(target: str, cat: bytes) -> None:
    async with AsyncClient(target) as aio:
        answers = [answer async for answer in aio.stream_attack(items(cat, IDS), in_flight=4)]
    assert len(answers) == len(IDS)
    check_answers(dict(answers))


def test_no_more_than_the_window_is_in_flight(client: Client, scripted: Scripted, cat: bytes) -> None:
    source: Iterator[tuple[str, ClassifyItem]] = ((str(i), {"images": cat}) for i in range(40))
    answers = dict(client.stream_classify(source, in_flight=5))
    assert sorted(answers) == sorted(str(i) for i in range(40))
    assert all(isinstance(answer, Classifications) for answer in answers.values())
    assert scripted.most_waiting == 5


async def test_no_more_than_the_async_window_is_in_flight(
    target: str, scripted: Scripted, cat: bytes
) -> None:
    async def source() -> AsyncIterator[tuple[str, ClassifyItem]]:
        for i in range(40):
            yield str(i), {"images": cat}

    async with AsyncClient(target) as aio:
        answers = {i: answer async for i, answer in aio.stream_classify(source(), in_flight=5)}
    assert sorted(answers) == sorted(str(i) for i in range(40))
    assert all(isinstance(answer, Classifications) for answer in answers.values())
    assert scripted.most_waiting == 5


def test_a_slow_source_holds_no_answer_back(client: Client, cat: bytes) -> None:
    answered = threading.Event()

    def source() -> Iterator[tuple[str, AttackItem]]:
        yield "first", {"images": cat}
        assert answered.wait(5)
        yield "second", {"images": cat}

    seen = []
    for i, _ in client.stream_attack(source()):
        seen.append(i)
        answered.set()
    assert seen == ["first", "second"]


def test_a_source_may_be_empty(client: Client) -> None:
    assert list(client.stream_attack(())) == []


async def test_an_async_source_may_be_empty(target: str) -> None:
    async with AsyncClient(target) as aio:
        assert [answer async for answer in aio.stream_attack(())] == []


BROKEN: list[tuple[list[tuple[str, Any]], type[Exception], str]] = [
    ([("x", {"images": 3})], InvalidArgument, "images: want an array"),
    ([("x", {"images": b"", "epsilom": 1})], UnknownParameter, "did you mean epsilon"),
    ([("x", {"images": "/no/such/file.png"})], FileNotFoundError, "file.png"),
]


@pytest.mark.parametrize(("wrong", "kind", "text"), BROKEN)
def test_what_never_reaches_the_server_is_raised_last(
    client: Client, cat: bytes, wrong: list[tuple[str, Any]], kind: type[Exception], text: str
) -> None:
    answers = client.stream_attack([*items(cat, ["a", "b"]), *wrong])
    assert [next(answers)[0], next(answers)[0]] == ["a", "b"]
    with pytest.raises(kind, match=text):
        next(answers)


@pytest.mark.parametrize(("wrong", "kind", "text"), BROKEN)
async def test_what_never_reaches_the_server_is_raised_last_async(
    target: str, cat: bytes, wrong: list[tuple[str, Any]], kind: type[Exception], text: str
) -> None:
    async with AsyncClient(target) as aio:
        answers = aio.stream_attack([*items(cat, ["a", "b"]), *wrong])
        assert [(await anext(answers))[0], (await anext(answers))[0]] == ["a", "b"]
        with pytest.raises(kind, match=text):
            await anext(answers)


def test_an_id_in_flight_is_not_given_twice(client: Client, cat: bytes) -> None:
    source: list[tuple[str, ClassifyItem]] = [("a", {"images": cat}), ("a", {"images": cat})]
    with pytest.raises(InvalidArgument, match="id: want one that no item in flight has, got 'a'"):
        list(client.stream_classify(source))


def test_patience_with_a_full_queue_ends(target: str, cat: bytes) -> None:
    with Client(target, timeout_s=1) as client:
        ((i, answer),) = client.stream_attack(items(cat, ["full"]))
    assert i == "full"
    assert isinstance(answer, Overloaded)
    assert answer.retry_after_s == 60


def test_what_outlasts_a_stream_is_answered_and_the_rest_goes_on(client: Client, cat: bytes) -> None:
    answers = dict(client.stream_attack(items(cat, ["a", "late", "b"]), in_flight=1))
    assert {i: type(answer) for i, answer in answers.items()} == {
        "a": AttackAnswer,
        "late": DeadlineExceeded,
        "b": AttackAnswer,
    }


async def test_what_outlasts_an_async_stream_is_answered_too(target: str, cat: bytes) -> None:
    async with AsyncClient(target) as aio:
        stream = aio.stream_attack(items(cat, ["a", "late", "b"]), in_flight=1)
        answers = {i: type(answer) async for i, answer in stream}
    assert answers == {"a": AttackAnswer, "late": DeadlineExceeded, "b": AttackAnswer}


def test_a_server_that_stays_away_ends_the_pipeline(cat: bytes) -> None:
    server, target = serve(Scripted())
    server.stop(0).wait()
    with Client(target, retries=1) as client, pytest.raises(Unavailable):
        list(client.stream_attack(items(cat, ["a"])))


def test_leaving_a_pipeline_frees_its_stream_and_thread(target: str, cat: bytes) -> None:
    endless: Iterator[tuple[str, AttackItem]] = ((str(i), {"images": cat}) for i in range(10**9))
    with Client(target, max_streams=1, timeout_s=5) as client:
        with closing(client.stream_attack(endless)) as answers:  # type: ignore[type-var]
            next(answers)
        client.classify(cat)
    end = time.monotonic() + 5
    while any(t.name == "iguana-pipeline" for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_leaving_an_async_pipeline_frees_its_stream(target: str, cat: bytes) -> None:
    endless: Iterator[tuple[str, AttackItem]] = ((str(i), {"images": cat}) for i in range(10**9))
    async with AsyncClient(target, max_streams=1, timeout_s=5) as aio:
        async with aclosing(aio.stream_attack(endless)) as answers:
            await anext(answers)
        await aio.classify(cat)


async def test_a_broken_async_stream_leaves_no_task(target: str, cat: bytes) -> None:
    async with AsyncClient(target) as aio:
        before = asyncio.all_tasks()
        async for _ in aio.stream_attack(items(cat, ["a", "break-1", "b", "break-2", "c"])):
            pass
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == before
