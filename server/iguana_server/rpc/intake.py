"""The intake: what reading any request needs, shared by all codecs of a server: limits, memory, threads.

Whatever costs more than a look is done in the threads, an image at a time, so that a call that ends gives its
places up.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from iguana.v1 import image_pb2
from iguana_server.errors import InvalidArgument, NotFound
from iguana_server.models.base import NAME
from iguana_server.rpc.bounds import MOST_FILES, Limits
from iguana_server.rpc.faults import Faults, text
from iguana_server.rpc.memory import Memory

T = TypeVar("T")

_PLACES = 4  # of a request in the threads: enough to keep them busy
_MANIFEST_BYTES = 2048  # of an answer, but for its parameters


class Intake:
    """Knows the limits, and nothing of any request."""

    def __init__(self, limits: Limits, threads: Executor) -> None:
        """Take the limits; `threads` must run as long as the intake is used."""
        self.limits = limits
        self.memory = Memory(limits.max_image_memory)
        self._threads = threads

    def check_count(
        self, values: Sequence[object], faults: Faults, field: str = "images", noun: str = "images"
    ) -> None:
        """Refuse too many values of a field before any of them is looked at. Raises InvalidArgument."""
        if not 1 <= len(values) <= self.limits.max_images:
            faults.add(field, f"1..{self.limits.max_images} {noun}", str(len(values)))
            faults.check()

    def check_cost(self, cost: int, faults: Faults, field: str = "images") -> None:
        """Refuse work that could never wait, before an image is decoded. Raises InvalidArgument."""
        most = self.limits.max_waiting_cost
        if cost > most:
            faults.add(field, f"at most {most} pixels x steps in one request", str(cost))
            faults.check()

    def check_reply(
        self, n: int, largest: int, faults: Faults, field: str = "images", noun: str = "images"
    ) -> None:
        """Refuse n answers of at most so many bytes each that could not be sent. Raises InvalidArgument."""
        most = (self.limits.max_reply_bytes - _MANIFEST_BYTES) // largest
        if n > most:
            want = f"at most {most} {noun}, for an answer of {self.limits.max_reply_bytes} bytes"
            faults.add(field, want, str(n))
            faults.check()

    def purse(self, field: str) -> Callable[[int], None]:
        """Return what is told of the pixels of the files of a field, and refuses too many in all."""
        most, total = MOST_FILES * self.limits.max_pixels, 0

        def spend(n: int) -> None:
            nonlocal total
            total += n
            if total > most:
                raise InvalidArgument(field, f"want at most {most} pixels in all files, got more")

        return spend

    async def read_each(
        self, images: Sequence[image_pb2.Image], read: Callable[[int], T], faults: Faults
    ) -> list[T]:
        """Read images by their place, each in a thread, and note those that are none; return the others."""
        found: list[T] = []
        for one in await self.each(_call(read, i) for i in range(len(images))):
            if isinstance(one, InvalidArgument):
                faults.extend(one)
            else:
                found.append(sound(one))
        return found

    async def each(self, works: Iterable[Callable[[], T]]) -> list[T | BaseException]:
        """Do many works, few at a time: callers with few take turns with a caller with many."""
        places = asyncio.Semaphore(_PLACES)

        async def one(work: Callable[[], T]) -> T:
            async with places:
                return await self.apart(work)

        return await asyncio.gather(*map(one, works), return_exceptions=True)

    def apart(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do work in a thread of its own: the event loop goes on."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


def named(what: str, words: str, name: str, known: Mapping[str, T], faults: Faults) -> T:
    """Return what a request names, `words` being how ListModels' names are spoken of; without it nothing can be read.

    Raises InvalidArgument, or NotFound with the close names.
    """
    if not NAME.fullmatch(name):
        faults.add("model", f"{words} from ModelService.ListModels", text(name))
        faults.check()
    if name not in known:
        raise NotFound(what, name, difflib.get_close_matches(name, known))
    return known[name]


def sound(result: T | BaseException) -> T:
    """The result, unless it is an exception, which is raised."""
    if isinstance(result, BaseException):
        raise result
    return result


def _call(read: Callable[[int], T], i: int) -> Callable[[], T]:
    return lambda: read(i)
