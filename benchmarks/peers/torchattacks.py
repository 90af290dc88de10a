"""torchattacks 3.5.1."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchattacks as library

ATTACKS: dict[str, Callable[[nn.Module, Task], Any]] = {
    "fgsm": lambda net, task: library.FGSM(net, eps=task.epsilon),
    "pgd": lambda net, task: library.PGD(
        net, eps=task.epsilon, alpha=task.alpha, steps=task.steps, random_start=False
    ),
    "pgdl2": lambda net, task: library.PGDL2(
        net, eps=task.epsilon, alpha=task.alpha, steps=task.steps, random_start=False
    ),
    "mifgsm": lambda net, task: library.MIFGSM(net, eps=task.epsilon, alpha=task.alpha, steps=task.steps),
    "apgd": lambda net, task: library.APGD(net, eps=task.epsilon, steps=task.steps, loss="ce"),
    "autoattack": lambda net, task: library.AutoAttack(net, eps=task.epsilon, seed=0),  # 10 steps each
}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack as the library's README does."""

    def run(task: Task) -> Tensor:
        return torch.as_tensor(ATTACKS[task.attack](victim.net, task)(victim.images, victim.labels))

    yield run
