"""Jobs one after another, each on the samples that held in the one before."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from iguana_server.engine.answer import Ended, Forged, Progress
from iguana_server.engine.job import AttackJob
from iguana_server.engine.loop import Engine


async def in_turn(
    engine: Engine, samples: int, acts: Sequence[Callable[[Sequence[int]], AttackJob]]
) -> AsyncGenerator[Progress | Forged]:
    """Run acts on the samples 0..samples-1; each makes the job of the samples it is given.

    A sample is answered as soon as an act fools the model with it, else after the last, or when its time is over:
    with the best that any act has found, and the looks and gradients of all. Raises what Engine.stream does.
    """
    playing: Sequence[int] = range(samples)
    best: dict[int, Forged] = {}
    for act in acts:
        held: list[int] = []
        async with aclosing(engine.stream(act(playing))) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield event
                    continue
                assert isinstance(event, Forged)  # noqa: S101 - attacks forge
                found = _best(best.get(event.sample), event)
                if act is not acts[-1] and found.outcome == "held" and found.ended is not Ended.TIME_LIMIT:
                    best[event.sample] = found
                    held.append(event.sample)
                else:
                    yield found
        if not held:
            return
        playing = sorted(held)


def _best(old: Forged | None, new: Forged) -> Forged:
    """The better of two answers for a sample, with the counts of both."""
    if old is None:
        return new
    better = new if new.outcome != "held" or new.margin > old.margin else replace(old, ended=new.ended)
    return replace(
        better,
        forward=old.forward + new.forward,
        backward=old.backward + new.backward,
        zero_gradients=old.zero_gradients + new.zero_gradients,
    )
