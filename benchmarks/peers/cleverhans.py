"""cleverhans 4.0.0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent


def _descent(victim: Victim, task: Task, norm: float) -> Any:
    return projected_gradient_descent(
        victim.net,
        victim.images,
        task.epsilon,
        task.alpha,
        task.steps,
        norm,
        clip_min=0,
        clip_max=1,
        y=victim.labels,
        rand_init=False,
        sanity_checks=False,
    )


ATTACKS: dict[str, Callable[[Victim, Task], Any]] = {
    "fgsm": lambda victim, task: fast_gradient_method(
        victim.net, victim.images, task.epsilon, np.inf, clip_min=0, clip_max=1, y=victim.labels
    ),
    "pgd": lambda victim, task: _descent(victim, task, np.inf),
    "pgdl2": lambda victim, task: _descent(victim, task, 2),
}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack without its sanity checks, which are slow."""

    def run(task: Task) -> Tensor:
        return torch.as_tensor(ATTACKS[task.attack](victim, task)).detach()

    yield run
