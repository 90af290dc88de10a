"""How good a network is: on the test pictures, and on the worst that PGD makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.pgd import PGD
from iguana_server.models.base import Model
from iguana_server.training.climb import climb

PICTURES = 1000  # a pass
STEPS = 20


@torch.inference_mode()
def accuracy(model: Model, images: Tensor, labels: Tensor) -> float:
    """Return the share of pictures, uint8 [n, 1, 28, 28], whose largest logit is the label's, [n]."""
    right = 0
    for i in range(0, len(labels), PICTURES):
        logits = model(images[i : i + PICTURES].float() / 255)
        right += int((logits.argmax(1) == labels[i : i + PICTURES]).sum())
    return right / len(labels)


def robust_accuracy(
    model: Model, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = STEPS, seed: int = 0
) -> float:
    """Return the share of pictures that are seen right as they are and at all of PGD's looks.

    PGD from a random start in the Linf ball of `epsilon` (of [0, 1] pixels), steps of 2.5 epsilon / steps,
    Madry et al. 2018. Arguments as of `accuracy`; picture i has the random numbers of sample i.
    """
    fooled = 0
    for i in range(0, len(labels), PICTURES):
        label = labels[i : i + PICTURES]
        table = PGD.new(
            images[i : i + PICTURES].float() / 255,
            classes=len(model.spec.classes),
            label=label,
            epsilon=epsilon,
            steps=steps,
            random_start=1,
            stop=NEVER,
            seed=seed,
            sample=torch.arange(i, i + len(label)),
        )
        climb(model, table, judge=True)
        fooled += int(table.fooled.sum())
    return 1 - fooled / len(labels)
