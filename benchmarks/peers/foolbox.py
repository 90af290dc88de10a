"""foolbox 3.3.4. Its MI-FGSM adds up signs of gradients, not gradients: another formula at the same cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox as library

ATTACKS: dict[str, Callable[[Task], Any]] = {
    "fgsm": lambda _: library.attacks.LinfFastGradientAttack(random_start=False),
    "pgd": lambda task: library.attacks.LinfPGD(
        abs_stepsize=task.alpha, steps=task.steps, random_start=False
    ),
    "pgdl2": lambda task: library.attacks.L2PGD(
        abs_stepsize=task.alpha, steps=task.steps, random_start=False
    ),
    "mifgsm": lambda task: library.attacks.LinfMomentumIterativeFastGradientMethod(
        abs_stepsize=task.alpha, steps=task.steps
    ),
}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack with one epsilon: it begins anew for each."""
    model = library.PyTorchModel(victim.net, bounds=(0, 1), device=victim.device)

    def run(task: Task) -> Tensor:
        attack = ATTACKS[task.attack](task)
        return torch.as_tensor(attack(model, victim.images, victim.labels, epsilons=task.epsilon)[0])

    yield run
