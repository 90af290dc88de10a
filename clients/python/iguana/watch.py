"""A watched attack: its events as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self

from iguana import response
from iguana.result import AttackResult, Progress, Summary
from iguana.v1 import attack_pb2


class Watch(Iterator[Progress | AttackResult]):
    """Iterates over progress and results; `summary` is set at its end. Closing it cancels the attack."""

    def __init__(self, messages: Generator[attack_pb2.WatchAttackResponse]) -> None:
        self._messages = messages
        self.summary: Summary | None = None

    def __next__(self) -> Progress | AttackResult:
        for message in self._messages:
            event = response.event(message)
            if not isinstance(event, Summary):
                return event
            self.summary = event
        raise StopIteration

    def close(self) -> None:
        """Cancel the attack if it is under way."""
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncWatch(AsyncIterator[Progress | AttackResult]):
    """As `Watch`, for `async for`."""

    def __init__(self, messages: AsyncGenerator[attack_pb2.WatchAttackResponse]) -> None:
        self._messages = messages
        self.summary: Summary | None = None

    async def __anext__(self) -> Progress | AttackResult:
        async for message in self._messages:
            event = response.event(message)
            if not isinstance(event, Summary):
                return event
            self.summary = event
        raise StopAsyncIteration

    async def close(self) -> None:
        """Cancel the attack if it is under way."""
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
