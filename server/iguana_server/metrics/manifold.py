"""Improved precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server.metrics.nearest import nearest

K = 3  # the paper's
ROWS, COLUMNS = 1024, 8192  # of a block of distances


def precision_recall(made: Tensor, real: Tensor, *, k: int = K) -> tuple[float, float]:
    """Return the share of made features [n, d] within the manifold of the real [m, d], and the other way round.

    The manifold of a set is the union of balls around its members, each as large as the distance to the member's k-th
    nearest other one. Precision is high where made pictures look real, recall where they are as diverse. Raises
    ValueError where a side has k rows or fewer.
    """
    if not 1 <= k < min(len(made), len(real)):
        raise ValueError(f"k: want 1 to {min(len(made), len(real)) - 1}, got {k}")
    return _within(made, real, k), _within(real, made, k)


def _within(queries: Tensor, manifold: Tensor, k: int) -> float:
    """The share of queries in one of the manifold's balls."""
    radius = nearest(manifold, manifold, k + 1)[0][:, k]  # the first is the member itself
    inside = 0
    for part in torch.split(queries, ROWS):
        hit = torch.zeros(len(part), dtype=torch.bool)
        for balls, radii in zip(torch.split(manifold, COLUMNS), torch.split(radius, COLUMNS), strict=True):
            hit |= (torch.cdist(part.double(), balls.double()) <= radii).any(1)
        inside += int(hit.sum())
    return inside / len(queries)
