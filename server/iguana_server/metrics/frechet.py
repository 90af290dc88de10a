"""Frechet inception distance: Heusel et al. 2017, arXiv:1706.08500; its bias: Chong and Forsyth 2020, arXiv:1911.07023."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

POINTS = 15  # of the line of an extrapolation, as in the paper
ROWS = 1024  # features that are added at once: what is kept of them does not grow


class Moments:
    """Mean and covariance of features, as they come; float64, by Chan, Golub and LeVeque 1979."""

    def __init__(self, features: int) -> None:
        self.n = 0
        self.mean = torch.zeros(features, dtype=torch.float64)
        self._scatter = torch.zeros(features, features, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Those of features [n, d]."""
        made = cls(features.shape[1])
        made.add(features)
        return made

    def add(self, features: Tensor) -> None:
        """Take more features [n, d] in. Raises ValueError for another shape, or numbers that are not finite."""
        if features.dim() != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features: want [n, {len(self.mean)}], got {list(features.shape)}")
        for part in torch.split(features, ROWS):
            x = part.double()
            if not x.isfinite().all():
                raise ValueError("features: want finite numbers, got others")
            mean = x.mean(0)
            x = x - mean
            shift, n = mean - self.mean, self.n + len(x)
            self._scatter.addmm_(x.T, x).addr_(shift, shift, alpha=self.n * len(x) / n)
            self.mean.add_(shift, alpha=len(x) / n)
            self.n = n

    @property
    def covariance(self) -> Tensor:
        """[d, d], unbiased. Raises ValueError where there are fewer than 2 features."""
        if self.n < 2:
            raise ValueError(f"features: want 2 rows or more, got {self.n}")
        return self._scatter / (self.n - 1)


def distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): 0 or more, but for rounding, which is not hidden.

    The trace of the root is the sum of the singular values of R_a R_b, R the symmetric roots: of symmetric
    matrices alone, so that deficient ranks need no offset, and roundings do not come under a square root.
    """
    return _Against(a).distance(b)


class _Against:
    """One side of many distances: its root is taken once."""

    def __init__(self, moments: Moments) -> None:
        self.moments, self.covariance = moments, moments.covariance
        self.root = _root(self.covariance)

    def distance(self, other: Moments) -> float:
        if len(other.mean) != len(self.moments.mean):
            raise ValueError(f"features: want {len(self.moments.mean)} of both sides, got {len(other.mean)}")
        covariance = other.covariance
        shift = (self.moments.mean - other.mean).square().sum()
        product = self.root @ covariance @ self.root
        trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
        return float(shift + self.covariance.trace() + covariance.trace() - 2 * trace)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


@dataclass(frozen=True)
class Extrapolation:
    """The distance at sizes n of the made set, and the line through it in 1 / n."""

    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    infinity: float  # where the line meets 1 / n = 0

    @property
    def bias(self) -> float:
        """How much of the distance at the largest size comes from the size."""
        return self.distances[-1] - self.infinity


def extrapolate(real: Moments, made: Tensor, *, sizes: Sequence[int], seed: int) -> Extrapolation:
    """Estimate the distance of endlessly many made pictures, features [n, d], to the real ones: FID-infinity.

    At each of the sizes, ascending, so many rows are drawn without replacement. The real side is taken as it is: its
    own bias stays. Raises ValueError where there are fewer than 2 sizes, or one is more than n.
    """
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or not 2 <= sizes[0] <= sizes[-1] <= len(made):
        raise ValueError(f"sizes: want 2 or more, ascending, from 2 to {len(made)}, got {list(sizes)}")
    against, rng = _Against(real), torch.Generator().manual_seed(seed)
    distances = []
    for size in sizes:
        rows = torch.randperm(len(made), generator=rng)[:size]
        distances.append(against.distance(Moments.of(made[rows])))
    _, infinity = np.polyfit(1 / np.array(sizes), np.array(distances), 1)
    return Extrapolation(tuple(sizes), tuple(distances), float(infinity))


def even_sizes(n: int) -> tuple[int, ...]:
    """Return POINTS sizes for `extrapolate`, evenly from a fifth of n to n."""
    return tuple(sorted({round(size) for size in np.linspace(max(2, n / 5), n, POINTS)}))
