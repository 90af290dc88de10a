from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from iguana import AsyncClient, Client, DeadlineExceeded, NotFound, Overloaded, Progress, Unavailable
from tests.client.scripted import Scripted, linger, refuse

GONE = refuse(grpc.StatusCode.UNAVAILABLE, "restarting")
STOPPED = refuse(grpc.StatusCode.CANCELLED, "stopping")
FULL = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=0.02)


@pytest_asyncio.fixture
async def aio(target: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(target, timeout_s=10) as client:
        yield client


def test_both_clients_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name == "__init__" or not name.startswith("_"):
            ours = inspect.signature(getattr(AsyncClient, name)).parameters
            theirs = inspect.signature(method).parameters
            assert list(ours) == list(theirs), name
            assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name


async def test_answers_are_those_of_the_sync_client(aio: AsyncClient, client: Client, cat: bytes) -> None:
    assert await aio.classify([cat] * 2, top_k=2) == client.classify([cat] * 2, top_k=2)
    assert await aio.attack(cat, target=1) == client.attack(cat, target=1)
    assert await aio.models() == client.models()
    assert await aio.attacks() == client.attacks()
    assert await aio.health()
    assert not await aio.health("unknown")


async def test_each_client_has_a_connection_of_its_own(target: str, scripted: Scripted, cat: bytes) -> None:
    peers: list[str] = []
    scripted.acts.extend([lambda context: peers.append(context.peer())] * 4)
    async with AsyncClient(target) as one, AsyncClient(target) as other:
        for client in (one, other, one, other):
            await client.classify(cat)
    assert peers[:2] == peers[2:]
    assert len(set(peers)) == 2


async def test_progress_is_reported(aio: AsyncClient, cat: bytes) -> None:
    seen: list[Progress] = []
    reported = await aio.attack(cat, target=1, on_progress=seen.append)
    assert [p.step for p in seen] == [1, 2]
    assert reported == await aio.attack(cat, target=1)


async def test_restarts_and_full_queues_are_not_noticed(
    aio: AsyncClient, scripted: Scripted, cat: bytes
) -> None:
    scripted.acts.extend([GONE, STOPPED, FULL, FULL])
    await aio.classify(cat)
    assert len(scripted.requests) == 5
    scripted.acts.extend([GONE, FULL])
    assert len([event async for event in aio.watch(cat)]) == 3
    scripted.acts.extend([lambda _: None, GONE])
    with pytest.raises(Unavailable):
        [event async for event in aio.watch(cat)]


async def test_a_refusal_is_typed(aio: AsyncClient, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.append(
        refuse(grpc.StatusCode.NOT_FOUND, "no such model", reason="ERROR_REASON_UNKNOWN_MODEL")
    )
    with pytest.raises(NotFound, match="no such model") as caught:
        await aio.classify(cat)
    assert caught.value.reason == "unknown_model"
    scripted.acts.append(refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=60))
    with pytest.raises(Overloaded):
        await aio.classify(cat)


async def test_a_cancelled_task_cancels_its_call(aio: AsyncClient, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.append(linger(5))
    task = asyncio.create_task(aio.classify(cat))
    while not scripted.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(scripted.left.wait, 2)
    assert len(scripted.requests) == 1


async def test_a_cancelled_watcher_cancels_its_attack(
    aio: AsyncClient, scripted: Scripted, cat: bytes
) -> None:
    began = asyncio.Event()

    async def watch() -> None:
        async with aio.watch(cat) as events:
            async for _ in events:
                began.set()

    scripted.acts.extend([lambda _: None, linger(5)])
    task = asyncio.create_task(watch())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(scripted.left.wait, 2)


async def test_a_wait_for_a_full_queue_can_be_cancelled(
    aio: AsyncClient, scripted: Scripted, cat: bytes
) -> None:
    scripted.acts.append(refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=8))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(aio.classify(cat), 0.3)
    assert len(scripted.requests) == 1


async def test_timeouts_are_kept(target: str, scripted: Scripted, cat: bytes) -> None:
    async with AsyncClient(target, max_streams=1) as aio:
        scripted.acts.append(linger(5))
        with pytest.raises(DeadlineExceeded):
            await aio.classify(cat, timeout_s=0.2)
        async with aio.watch(cat) as watch:
            await anext(watch)
            with pytest.raises(DeadlineExceeded, match="all 1 streams"):
                await aio.classify(cat, timeout_s=0.1)
        await aio.classify(cat)


async def test_own_streams_are_bounded(target: str, cat: bytes) -> None:
    async with AsyncClient(target, max_streams=2) as aio:
        answers = await asyncio.gather(*(aio.classify(cat) for _ in range(20)))
    assert len(answers) == 20


def test_it_is_made_in_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncClient()
