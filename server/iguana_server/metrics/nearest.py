"""Nearest neighbours: who has been copied, and how far the others are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

QUERIES, BASE = 1024, 8192  # rows of a block of distances
SPARE = 4  # more candidates than are asked for, as distances of a product of matrices have roundings


def nearest(queries: Tensor, base: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return distances [n, k], float64, and rows [n, k] of the k nearest of base [m, d] to queries [n, d], ascending.

    L2. The candidates are found in float32, in blocks; their distances, and order, are then taken in float64 from the
    differences: to a copy it is 0. Raises ValueError where the base has fewer than k rows.
    """
    if queries.dim() != 2 or base.dim() != 2 or queries.shape[1] != base.shape[1]:
        raise ValueError(f"rows: want [n, d] and [m, d], got {list(queries.shape)} and {list(base.shape)}")
    if not 1 <= k <= len(base):
        raise ValueError(f"k: want 1 to {len(base)}, got {k}")
    centre = base.mean(0, dtype=torch.float32)
    most = min(k + SPARE, len(base))
    distances, rows = [], []
    for part in torch.split(queries, QUERIES):
        best = torch.empty(len(part), 0)
        index = torch.empty(len(part), 0, dtype=torch.int64)
        for start, block in _blocks(base):
            square = _squares(part.float() - centre, block.float() - centre)
            best = torch.cat([best, square], 1)
            found = torch.arange(start, start + len(block)).expand(len(part), -1)
            index = torch.cat([index, found], 1)
            best, place = best.topk(min(most, best.shape[1]), 1, largest=False)
            index = index.gather(1, place)
        exact = (base[index].double() - part.double().unsqueeze(1)).square().sum(2).sqrt()
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact[:, :k])
        rows.append(index.gather(1, order)[:, :k])
    return torch.cat(distances), torch.cat(rows)


def _blocks(base: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(base), BASE):
        yield start, base[start : start + BASE]


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 of all pairs."""
    return torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True))
