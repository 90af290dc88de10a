"""Kernel inception distance: Binkowski et al. 2018, arXiv:1801.01401."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SUBSETS, SIZE = 100, 1000  # the paper's


def kernel_distance(
    made: Tensor, real: Tensor, *, subsets: int = SUBSETS, size: int = SIZE, seed: int = 0
) -> tuple[float, float]:
    """Return mean and standard deviation, over random subsets, of the unbiased MMD^2 of features [n, d] and [m, d].

    The kernel is (x . y / d + 1)^3. Without bias, it is around 0 where both sides are alike, and so below 0 half of
    the time: nothing is cut off. The subsets of a seed are those of torch-fidelity. Raises ValueError where a side has
    fewer rows than a subset.
    """
    if made.dim() != 2 or real.dim() != 2 or made.shape[1] != real.shape[1]:
        raise ValueError(f"features: want [n, d] and [m, d], got {list(made.shape)} and {list(real.shape)}")
    least = min(len(made), len(real))
    if not 2 <= size <= least or subsets < 1:
        raise ValueError(f"size: want 2 to {least} rows, in 1 subset or more, got {size} in {subsets}")
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x = made[torch.from_numpy(rng.choice(len(made), size, replace=False))].double()
        y = real[torch.from_numpy(rng.choice(len(real), size, replace=False))].double()
        found.append(mmd2(x, y))
    return float(np.mean(found)), float(np.std(found))


def mmd2(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of rows [m, d] and [m, d] (Gretton et al. 2012)."""
    m = len(x)
    within = sum(k.sum() - k.trace() for k in (_kernel(x, x), _kernel(y, y)))
    return float(within / (m * (m - 1)) - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
