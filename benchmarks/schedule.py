"""Three ways to serve the same requests with the same engine, models and kernels.

- step by step: every request goes to the engine as it comes, and joins the others at their next step;
- whole requests: a dynamic batcher as of Triton (no delay, so that it never waits for company): requests that
  are alike and wait at the same moment run as one batch, to its end, and then the next;
- one after another: each request alone, to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.workload import Request, job
from iguana_server.engine import Engine
from iguana_server.engine.answer import Answer
from iguana_server.models.base import Model


@dataclass(frozen=True, kw_only=True)
class Served:
    """A request, its answers in the order of its images, and when, in s after the start, they were there."""

    request: Request
    answers: list[Answer]
    end: float

    @property
    def latency(self) -> float:
        """Seconds since it should have been sent, however late it was."""
        return self.end - self.request.at


@dataclass(frozen=True, kw_only=True)
class Server:
    """An engine, the one model that it runs, and how it is to run."""

    engine: Engine
    model: Model
    strict: bool

    async def run(self, requests: Sequence[Request], caller: str = "benchmark") -> list[list[Answer]]:
        """Run requests that are alike as one job; returns each one's answers."""
        answers = await self.engine.run(job(requests, self.model, caller, strict=self.strict))
        split, start = [], 0
        for request in requests:
            split.append(answers[start : start + len(request.images)])
            start += len(request.images)
        return split


Schedule = Callable[[Server, Sequence[Request]], Awaitable[list[Served]]]


async def step_by_step(server: Server, requests: Sequence[Request]) -> list[Served]:
    """Hand over each request when it comes."""
    clock = asyncio.get_running_loop().time
    start = clock()

    async def serve(number: int, request: Request) -> Served:
        await asyncio.sleep(start + request.at - clock())
        (answers,) = await server.run([request], caller=str(number))
        return Served(request=request, answers=answers, end=clock() - start)

    return await asyncio.gather(*(serve(i, request) for i, request in enumerate(requests)))


async def whole_requests(server: Server, requests: Sequence[Request]) -> list[Served]:
    """The oldest that waits, and with it what is like it, up to a pass's rows."""

    def batch(waiting: Sequence[Request]) -> list[Request]:
        chosen, rows = [waiting[0]], len(waiting[0].images)
        for request in waiting[1:]:
            if rows + len(request.images) <= server.model.spec.max_batch and request.like(waiting[0]):
                chosen.append(request)
                rows += len(request.images)
        return chosen

    return await _in_turn(server, requests, batch)


async def one_after_another(server: Server, requests: Sequence[Request]) -> list[Served]:
    """The oldest that waits."""
    return await _in_turn(server, requests, lambda waiting: [waiting[0]])


async def _in_turn(
    server: Server, requests: Sequence[Request], batch: Callable[[Sequence[Request]], list[Request]]
) -> list[Served]:
    clock = asyncio.get_running_loop().time
    start, served = clock(), dict[Request, Served]()
    while len(served) < len(requests):
        left = [request for request in requests if request not in served]
        if waiting := [request for request in left if start + request.at <= clock()]:
            chosen = batch(waiting)
            split = await server.run(chosen)
            end = clock() - start
            for request, answers in zip(chosen, split, strict=True):
                served[request] = Served(request=request, answers=answers, end=end)
        else:
            await asyncio.sleep(start + left[0].at - clock())
    return [served[request] for request in requests]


SCHEDULES: dict[str, Schedule] = {
    "step by step": step_by_step,
    "whole requests": whole_requests,
    "one after another": one_after_another,
}
