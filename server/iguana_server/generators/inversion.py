"""Inversion: the code whose picture comes nearest to a given one, by gradient descent through the generator.

Creswell & Bharath 2018, arXiv:1611.05644: minimise the error of the picture plus a weight on the code's square (its
negative log-density under the normal prior), here by Adam (Kingma & Ba 2015), from codes of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at codes showed: pictures [m, C, H, W] in [0, 1], their error [m], gradient in the codes [m, d]."""

    pixels: Tensor
    error: Tensor
    grad: Tensor


@dataclass(kw_only=True, eq=False)
class Inversion:
    """A table: fields are columns, rows on axis 0, changed in place; a row never looks at another."""

    z: Tensor  # [n, d]
    label: Tensor  # [n]
    target: Tensor  # [n, C, H, W] in [0, 1]
    rate: Tensor  # [n] step of Adam
    prior: Tensor  # [n] weight of the mean square of z
    steps: Tensor  # [n] moves

    def __post_init__(self) -> None:
        n = len(self.z)
        self.m, self.v, self.best_z = (torch.zeros_like(self.z) for _ in range(3))
        self.best = torch.zeros_like(self.target)
        self.error = torch.full((n,), math.inf)
        self.first_error = torch.full((n,), math.inf)
        self.t = torch.zeros(n, dtype=torch.int64)
        self.best_t = torch.zeros(n, dtype=torch.int64)
        self.finite = torch.ones(n, dtype=torch.bool)

    def __len__(self) -> int:
        """Rows."""
        return len(self.z)

    def question(self, rows: Tensor) -> Question:
        """Return what a look at these rows needs."""
        return Question(*(getattr(self, field.name)[rows] for field in fields(Question)))

    def advance(self, rows: Tensor, seen: Seen) -> None:
        """Judge what was seen at these rows' codes, keep the best, and move."""
        pixels, error, grad = (x.cpu() for x in (seen.pixels, seen.error, seen.grad))
        first = self.t[rows] == 0
        finite = error.isfinite() & grad.isfinite().all(1)
        self.finite[rows] &= finite
        self.first_error[rows] = torch.where(first, error, self.first_error[rows])
        better = finite & (error < self.error[rows])
        self.best_z[rows] = torch.where(better[:, None], self.z[rows], self.best_z[rows])
        self.best[rows] = torch.where(better[:, None, None, None], pixels, self.best[rows])
        self.best_t[rows] = torch.where(better, self.t[rows], self.best_t[rows])
        self.error[rows] = torch.where(better, error, self.error[rows])
        self.t[rows] += 1
        m = self.m[rows].mul(BETA1).add(grad, alpha=1 - BETA1)
        v = self.v[rows].mul(BETA2).add(grad.square(), alpha=1 - BETA2)
        self.m[rows], self.v[rows] = m, v
        t = self.t[rows].double()
        rate = (self.rate[rows].double() / (1 - BETA1**t)).float()[:, None]
        spread = (v / (1 - BETA2**t).float()[:, None]).sqrt().add(EPSILON)
        self.z[rows] -= rate * m / spread

    def done(self, row: int) -> bool:
        """Whether a row has been looked at after its last move, or cannot go on."""
        return bool(self.t[row] > self.steps[row]) or not bool(self.finite[row])


@dataclass(frozen=True, slots=True)
class Question:
    """Codes to be looked at, and what is wanted of them; columns as of Inversion."""

    z: Tensor
    label: Tensor
    target: Tensor
    prior: Tensor


def look(network: Callable[..., Tensor], question: Question) -> Seen:
    """Show codes to the generator: the error is the mean square over a picture's numbers."""
    z = question.z.detach().clone().requires_grad_()
    pixels = network(z, question.label)
    error = (pixels - question.target).square().flatten(1).mean(1)
    loss = error + question.prior * z.square().mean(1)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return Seen(pixels.detach(), error.detach(), grad)
