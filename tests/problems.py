"""Problems whose best point in a ball is known: ATTACKS x PROBLEMS is every attack's first test.

A problem is a model of two classes on 4x4 grey images; class 0 is to be left, and
lead(x) = logit 1 - logit 0 is to be made large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PIXELS = 16


@dataclass(frozen=True)
class Problem:
    """lead [n, C, H, W] -> [n], and where it is largest within epsilon of x0 (Linf or L2)."""

    name: str
    lead: Callable[[Tensor], Tensor]
    best: Callable[[Tensor, float, str], Tensor]

    def model(self, x: Tensor, level: float = 0) -> Tensor:
        """Logits [n, 2]; class 0 is lost where lead > level."""
        lead = self.lead(x) - level
        return torch.stack([torch.zeros_like(lead), lead], 1)

    def distance(self, x0: Tensor, level: float, norm: str) -> Tensor:
        """[n] of x0 from where lead = level: the radius of the ball whose best point just reaches it."""
        radii = []
        for row in x0:
            low, high = 0.0, 10.0
            for _ in range(50):
                radius = (low + high) / 2
                reached = bool(self.lead(self.best(row[None], radius, norm)) > level)
                low, high = (low, radius) if reached else (radius, high)
            radii.append(high)
        return torch.tensor(radii)


def _weights(seed: int) -> Tensor:
    return torch.randn(PIXELS, generator=torch.Generator().manual_seed(seed))


def _linear() -> Problem:
    w = _weights(1)

    def best(x0: Tensor, epsilon: float, norm: str) -> Tensor:
        direction = w.sign() if norm == "linf" else w / w.norm()
        return x0 + epsilon * direction.view(x0.shape[1:])

    return Problem("linear", lambda x: x.flatten(1) @ w - 8.0, best)


def _quadratic(name: str, distance: float) -> Problem:
    """-|x - c|^2 with c so far from the middle, in every pixel."""
    c = 0.5 + distance * (_weights(2).sign() * torch.linspace(0.4, 1, PIXELS))

    def best(x0: Tensor, epsilon: float, norm: str) -> Tensor:
        way = c.view(x0.shape[1:]) - x0
        if norm == "linf":
            return x0 + way.clamp(-epsilon, epsilon)
        length: Tensor = way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return x0 + way * length.reciprocal().mul(epsilon).clamp_max(1)

    return Problem(name, lambda x: -(x.flatten(1) - c).square().sum(1), best)


PROBLEMS = [_linear(), _quadratic("peak outside the ball", 0.4), _quadratic("peak inside the ball", 0.08)]
