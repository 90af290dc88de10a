"""Inception score: Salimans et al. 2016, arXiv:1606.03498; what is wrong with it: Barratt and Sharma 2018, arXiv:1801.01973."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROWS = 1024  # logits that are in float64 at once


def inception_score(logits: Tensor, *, splits: int) -> tuple[float, float]:
    """Return mean and standard deviation, over the splits, of exp(H(y) - E H(y | x)); logits [n, K] give y | x.

    Each split is a run of about n / splits rows in the order given (shuffle before, if they are sorted by class): with
    more splits the score is less, and never above n / splits. It is within [1, K]. Raises ValueError where splits are
    none, or more than n.
    """
    if logits.dim() != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"splits: want 1 to n of logits [n, K], got {splits} of {list(logits.shape)}")
    n = len(logits)
    scores = [_score(logits[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Tensor) -> float:
    total = torch.zeros(logits.shape[1], dtype=torch.float64)
    entropy = 0.0  # of y | x, summed
    for part in torch.split(logits, ROWS):
        log_p = part.double().log_softmax(1)
        p = log_p.exp()
        total += p.sum(0)
        entropy -= torch.special.xlogy(p, p).sum().item()
    p = total / len(logits)
    return float(np.exp(-torch.special.xlogy(p, p).sum().item() - entropy / len(logits)))
