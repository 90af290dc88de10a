"""Attacks by queries on one picture, written down plainly."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def rays(fools: Callable[[Tensor], bool], x0: Tensor, queries: int, tolerance: float) -> Tensor:
    """RayS, algorithms 2 and 3 of Chen and Gu 2020 (arXiv:2006.12792) with a budget: the nearest of x0 that fools."""
    d, ray, reach, best = x0.numel(), torch.ones(x0.numel()), math.inf, x0
    left = queries - 1
    level = block = 0

    def at(attempt: Tensor, length: float) -> Tensor:
        return (x0 + torch.tensor(length) * attempt.view(x0.shape)).clamp(0, 1)

    def ask(x: Tensor) -> bool:
        nonlocal left
        left -= 1
        return fools(x)

    while left > 0:
        start, end = (min(d, k * math.ceil(d / 2**level)) for k in (block, block + 1))
        attempt = ray.clone()
        attempt[start:end] *= -1
        low, high = 0.0, min(reach, 1.0)
        if ask(at(attempt, high)):
            best = best if reach < math.inf else at(attempt, high)
            while left > 0:
                middle = (low + high) / 2
                if ask(at(attempt, middle)):
                    high = middle
                    best = at(attempt, high)
                else:
                    low = middle
                if (high - low) * math.sqrt(d) <= tolerance:
                    ray, reach = (attempt, high) if high < reach else (ray, reach)
                    break
        block += 1
        if end == d:
            level, block = level + 1, 0
    return best


def simba(
    loss: Callable[[Tensor], float], x0: Tensor, order: Tensor, queries: int, alpha: float = 0.2
) -> tuple[Tensor, float]:
    """SimBA in the pixels, Guo et al. 2019 (arXiv:1905.07121), in a given order: the picture and its loss."""
    x, left, pixel = x0.flatten().clone(), queries - 2, 0  # the last look is not moved upon
    top = loss(x0)
    while left > 0:
        k = order[pixel]
        for step in (-alpha, alpha):
            if left == 0:
                break
            trial = x.clone()
            trial[k] = (trial[k] + step).clamp(0, 1)
            left -= 1
            if (found := loss(trial.view(x0.shape))) > top:
                top, x = found, trial
                break
        pixel += 1
    return x.view(x0.shape), top
