"""Iguana in this process: the engine called directly. Its settings are the process's (see worker.py)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.passing import passing
from benchmarks.peers import task as tasks
from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim
from iguana_server.attacks import catalog as attacks
from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.engine import AttackJob, Engine, Forged, Plan
from iguana_server.models import catalog as models
from iguana_server.models.base import Model

ATTACKS = tasks.ATTACKS


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack the catalog's model of the victim's name; see attacking."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the server's default
    model = passing(lambda: models.load(victim.name, victim.device))
    with attacking(victim, model) as run:
        yield lambda task: stacked(run(task))


@contextmanager
def attacking(victim: Victim, model: Model) -> Iterator[Callable[[Task], list[Forged]]]:
    """Attack by one job a task, float pixels out, the last iterate unless rows leave early."""
    images, labels = victim.images.cpu(), victim.labels.cpu()

    async def forge(engine: Engine, task: Task) -> list[Forged]:
        attack = attacks.ATTACKS[task.attack]
        values: dict[str, float] = {
            "epsilon": task.epsilon,
            "alpha": task.alpha,
            "stop": FIRST_SUCCESS if task.early else NEVER,
            "keep_last": not task.early,
        }
        if task.attack != "fgsm":
            values["steps"] = task.steps
        columns = {
            name: torch.full((len(images),), value, dtype=column.dtype)
            for name, value in values.items()
            if (column := attack.columns().get(name)) is not None
        }
        plan = Plan(attack=attack, columns={**columns, "label": labels}, on_grid=False)
        job = AttackJob(
            images, plan, method="benchmark", model=victim.name, caller="benchmark", strict=task.strict
        )
        return [answer for answer in await engine.run(job) if isinstance(answer, Forged)]

    with Engine({victim.name: model}) as engine, asyncio.Runner() as runner:
        torch.set_num_threads(1)  # of this thread, as in the server: the team is the engine's
        # Not Runner.run: before Python 3.13 it writes its result out as text.
        yield lambda task: runner.get_loop().run_until_complete(forge(engine, task))


def stacked(answers: Sequence[Forged]) -> Tensor:
    """[n, C, H, W] the images of the answers."""
    return torch.stack([answer.image for answer in answers])
