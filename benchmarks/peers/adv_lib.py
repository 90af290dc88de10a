"""adv-lib 0.2.8. It imports torchvision and visdom for plots and a distance that no attack here uses."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim

for name in ("torchvision", "torchvision.models", "visdom"):
    sys.modules.setdefault(name, ModuleType(name))
sys.modules["torchvision"].models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from adv_lib.attacks import apgd, pgd_linf

ATTACKS: dict[str, Callable[[Victim, Task], Any]] = {
    # Its last iterate is never looked at, so that the last move is of no use: as its users have it.
    "pgd": lambda victim, task: pgd_linf(
        victim.net,
        victim.images,
        victim.labels,
        task.epsilon,
        steps=task.steps,
        random_init=False,
        absolute_step_size=task.alpha,
    ),
    "apgd": lambda victim, task: apgd(
        victim.net,
        victim.images,
        victim.labels,
        task.epsilon,
        math.inf,
        n_iter=task.steps,
        loss_function="ce",
    ),
}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack; where it fails, the library answers the clean image."""

    def run(task: Task) -> Tensor:
        return torch.as_tensor(ATTACKS[task.attack](victim, task))

    yield run
