"""The Adversarial Robustness Toolbox 1.20.1: arrays in, arrays out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from art.attacks.evasion import (
        AutoProjectedGradientDescent,
        FastGradientMethod,
        MomentumIterativeMethod,
        ProjectedGradientDescentPyTorch,
    )
    from art.estimators.classification import PyTorchClassifier


def _descent(classifier: Any, task: Task, n: int, norm: float) -> Any:
    return ProjectedGradientDescentPyTorch(
        classifier,
        norm=norm,
        eps=task.epsilon,
        eps_step=task.alpha,
        max_iter=task.steps,
        num_random_init=0,
        batch_size=n,
        verbose=False,
    )


ATTACKS: dict[str, Callable[[Any, Task, int], Any]] = {
    "fgsm": lambda classifier, task, n: FastGradientMethod(classifier, eps=task.epsilon, batch_size=n),
    "pgd": lambda classifier, task, n: _descent(classifier, task, n, np.inf),
    "pgdl2": lambda classifier, task, n: _descent(classifier, task, n, 2),
    "mifgsm": lambda classifier, task, n: MomentumIterativeMethod(
        classifier,
        eps=task.epsilon,
        eps_step=task.alpha,
        max_iter=task.steps,
        decay=1.0,
        batch_size=n,
        verbose=False,
    ),
    "apgd": lambda classifier, task, n: AutoProjectedGradientDescent(
        classifier,
        eps=task.epsilon,
        eps_step=2 * task.epsilon,
        max_iter=task.steps,
        nb_random_init=1,
        batch_size=n,
        loss_type="cross_entropy",
        verbose=False,
    ),
}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack with the labels given one-hot."""
    classifier = PyTorchClassifier(
        victim.net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(victim.images.shape[1:]),
        nb_classes=victim.classes,
        clip_values=(0, 1),
        device_type="gpu" if victim.device.type == "cuda" else "cpu",
    )
    images = victim.images.cpu().numpy()
    labels = np.eye(victim.classes, dtype=np.float32)[victim.labels.cpu().numpy()]

    def run(task: Task) -> Tensor:
        attack = ATTACKS[task.attack](classifier, task, len(images))
        return torch.from_numpy(attack.generate(x=images, y=labels))

    yield run
