"""A pipeline: many requests on one stream, each answered when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from iguana.v1 import error_pb2
from iguana_server.errors import InvalidArgument
from iguana_server.rpc.bounds import MAX_ID
from iguana_server.rpc.faults import text
from iguana_server.rpc.status import to_failure


class Item(Protocol):
    """A request with the caller's name for it."""

    @property
    def id(self) -> str:
        """At most 64 characters, unlike those of the other items in flight."""


I = TypeVar("I", bound=Item)  # noqa: E741 - an item
R = TypeVar("R")


async def replies(
    items: AsyncIterator[Any],
    kind: Callable[..., R],
    answer: Callable[[Any], Awaitable[object]],
    *,
    most: int,
) -> AsyncGenerator[R]:
    """Yield a reply of this kind, a message of id and response or failure, to each item's request; see pipeline."""

    async def run(item: Any) -> R:
        return kind(id=item.id, response=await answer(item.request))

    def refuse(name: str, failure: error_pb2.Failure) -> R:
        return kind(id=name, failure=failure)

    async with aclosing(pipeline(items, run, refuse, most=most)) as made:
        async for reply in made:
            yield reply


async def pipeline(
    items: AsyncIterator[I],
    answer: Callable[[I], Awaitable[R]],
    refuse: Callable[[str, error_pb2.Failure], R],
    *,
    most: int,
) -> AsyncGenerator[R]:
    """Yield the replies to items as they are ready.

    An item is in flight from when it is read until its reply is taken; with `most` in flight no more are read,
    so the sender waits. What `answer` raises becomes the item's own refusal. When the items end, those in
    flight are finished; when the generator is closed, they are cancelled.
    """
    slots = asyncio.Semaphore(most)
    flying: dict[str, asyncio.Task[None]] = {}
    ready: asyncio.Queue[tuple[str | None, R] | None] = asyncio.Queue()  # None: no more will be read

    async def run(item: I) -> None:
        try:
            reply = await answer(item)
        except Exception as error:  # a defect too: it is logged there, and costs one item
            reply = refuse(item.id, to_failure(error))
        ready.put_nowait((item.id, reply))

    async def read() -> None:
        while True:
            await slots.acquire()
            item = await anext(items, None)
            if item is None:
                return
            fault = _fault(item.id, flying)
            if fault is None:
                flying[item.id] = asyncio.create_task(run(item))
            else:
                ready.put_nowait((None, refuse(item.id[:MAX_ID], to_failure(fault))))

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: ready.put_nowait(None))
    try:
        while not reader.done() or flying or not ready.empty():
            taken = await ready.get()
            if taken is None:
                reader.result()  # the caller left, or sent what is no message
                continue
            name, reply = taken
            if name is not None:
                del flying[name]
            yield reply
            slots.release()
        reader.result()
    finally:
        tasks = [reader, *flying.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fault(name: str, flying: dict[str, asyncio.Task[None]]) -> InvalidArgument | None:
    if len(name) > MAX_ID:
        return InvalidArgument("id", f"want at most {MAX_ID} characters, got {len(name)}")
    if name in flying:
        return InvalidArgument("id", f"want one that no item in flight has, got {text(name)} again")
    return None
