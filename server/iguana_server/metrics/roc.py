"""Area under the ROC curve, with the interval of DeLong, DeLong and Clarke-Pearson 1988."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor


@dataclass(frozen=True)
class Auc:
    """The chance that a positive scores above a negative (a tie is half), and the interval around it."""

    value: float
    low: float
    high: float
    level: float  # of confidence


def auc(positive: Tensor, negative: Tensor, *, level: float = 0.95) -> Auc:
    """Compare the scores [n] of positives with those [m] of negatives. Raises ValueError below 2 of either.

    The interval is the normal one of DeLong's variance, cut at 0 and 1, which no area is beyond.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        raise ValueError(f"scores: want 2 or more of each side, got {n} and {m}")
    above = _ranks(torch.cat([positive, negative]))
    # Placements (Sun and Xu 2014): the share of the other side that each score is above, and is below.
    v10 = (above[:n] - _ranks(positive)) / m
    v01 = 1 - (above[n:] - _ranks(negative)) / n
    value = v10.mean().item()
    error = (v10.var() / n + v01.var() / m).sqrt().item()
    z = NormalDist().inv_cdf((1 + level) / 2)
    return Auc(value, max(0.0, value - z * error), min(1.0, value + z * error), level)


def curve(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of negatives and positives, [t] each, at or above each threshold, from (0, 0) to (1, 1)."""
    thresholds = torch.unique(torch.cat([positive, negative]).double()).flip(0)
    shares = [
        1 - torch.searchsorted(side.double().sort().values, thresholds).double() / len(side)
        for side in (negative, positive)
    ]
    start = torch.zeros(1, dtype=torch.float64)
    return torch.cat([start, shares[0]]), torch.cat([start, shares[1]])


def _ranks(scores: Tensor) -> Tensor:
    """Midranks from 1, float64."""
    _, inverse, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts.double() - 1) / 2)[inverse]
    return ranks
