"""Losses of the logits, one number a row, in the direction an attack climbs.

Each takes logits [n, K], label [n] (to leave, or to reach where `targeted`), the clean
prediction [n] and targeted [n] bool, and returns [n].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def lead(logits: Tensor, label: Tensor) -> Tensor:
    """[n] by how much the best other class leads the label, in logits; > 0 when the label has lost."""
    own = logits.gather(1, label[:, None])
    other = logits.scatter(1, label[:, None], -math.inf).amax(1, keepdim=True)
    return (other - own)[:, 0]


def cross_entropy(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:  # noqa: ARG001
    """-log softmax at the label; targeted: its negative."""
    loss = F.cross_entropy(logits, label, reduction="none")
    return torch.where(targeted, -loss, loss)


def margin(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:  # noqa: ARG001
    """Lead of the best other class; targeted: its negative (Carlini and Wagner 2017, f6)."""
    loss = lead(logits, label)
    return torch.where(targeted, -loss, loss)


def dlr(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6; targeted: eq. 7, with y the clean prediction).

    Needs K >= 3, targeted K >= 4. With fewer than 4 classes every row must be untargeted.
    """
    own = logits.gather(1, label[:, None])[:, 0]
    z, order = logits.sort(1)
    top = (order[:, -1] == label).float()
    free = -(own - z[:, -2] * top - z[:, -1] * (1.0 - top)) / (z[:, -1] - z[:, -3] + 1e-12)
    if logits.shape[1] < 4:
        return free
    start = logits.gather(1, clean[:, None])[:, 0]
    aimed = -(start - own) / (z[:, -1] - 0.5 * (z[:, -3] + z[:, -4]) + 1e-12)
    return torch.where(targeted, aimed, free)


def logit(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:  # noqa: ARG001
    """Minus the label's logit; targeted: the logit (Zhao et al. 2021)."""
    own = logits.gather(1, label[:, None])[:, 0]
    return torch.where(targeted, own, -own)


def l2(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:  # noqa: ARG001
    """Squared L2 distance of softmax to one-hot(label); targeted: its negative."""
    distance = (_softmax(logits) - F.one_hot(label, logits.shape[1])).square().sum(1)
    return torch.where(targeted, -distance, distance)


def l1(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:  # noqa: ARG001
    """L1 distance of softmax to one-hot(label); targeted: its negative."""
    distance = (_softmax(logits) - F.one_hot(label, logits.shape[1])).abs().sum(1)
    return torch.where(targeted, -distance, distance)


def _softmax(logits: Tensor) -> Tensor:
    """By its logarithm: with several threads the backward of softmax itself gives one row alone other bits."""
    return logits.log_softmax(1).exp()


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "logit": logit,
    "l2": l2,
    "l1": l1,
}
