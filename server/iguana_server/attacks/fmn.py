"""Fast minimum norm: Pintor et al. 2021, arXiv:2102.12827, algorithm 1."""

import math

import torch
from torch import Tensor

from iguana_server.attacks.base import param, state
from iguana_server.attacks.minimumnorm import L2, LINF, MinimumNorm, annealed, length, spread, total

_CLOSE = 1e-3  # of the distance: what an estimate adds to it is no news


class FMN(MinimumNorm):
    """Climb the loss in a ball whose radius follows the distance to the boundary, estimated until it is found.

    An estimate that has all but come true counts as found: on planes it would end an ulp short for ever. So do
    estimates, from the second on, of a boundary within a ball that was full and did not reach it: where the box takes
    much of a move away, they would never come true.
    """

    name = "fmn"
    paper = "Pintor et al. 2021, arXiv:2102.12827"
    default_loss = "margin"

    metric: Tensor = param(
        L2, low=0, high=1, kind="choice", choices=("l2", "linf"), doc="the norm that is made small"
    )
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves")
    alpha: Tensor = param(
        1.0,
        low=0,
        high=1000,
        doc="L2 length of the first move, in units of a [0, 1] pixel; the last is a hundredth",
    )
    gamma: Tensor = param(
        0.05, low=0, high=1, doc="share by which the radius changes at the first move; at the last 0.001"
    )

    epsilon: Tensor = state(fill=math.inf)  # radius
    found: Tensor = state(dtype=torch.bool)
    full: Tensor = state(dtype=torch.bool)  # the last move went to the rim of the ball
    refuted: Tensor = state(dtype=torch.bool)  # an estimate was of a boundary within a ball that was full
    nearest: Tensor = state(fill=math.inf)  # distance of what fooled

    def linf(self) -> Tensor:
        """As asked."""
        return self.metric == LINF

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- clip(x0 + P(d)), d = x - x0 + alpha grad / |grad|_2, P the projection into the ball."""
        linf = self.linf()
        d = self.x - self.x0
        self._resize(self.gap(logits) > 0, self.distance(self.x), loss.abs() / self._slope(grad))
        alpha = annealed(self.alpha, self.alpha / 100, self.t, self.steps)
        d += grad * spread(alpha / length(grad).clamp_min(1e-12))
        most = spread(torch.where(linf, self.epsilon, math.inf))
        wide = d.abs().amax((1, 2, 3)) >= self.epsilon
        d = torch.minimum(torch.maximum(d, -most), most)
        far = length(d)
        self.full.copy_(torch.where(linf, wide, far >= self.epsilon))
        shrink = (self.epsilon / far.clamp_min(1e-12)).clamp_max(1)
        d *= spread(torch.where(linf, 1.0, shrink))
        self.x.copy_(d.add_(self.x0).clamp_(0, 1))

    def _slope(self, grad: Tensor) -> Tensor:
        """[n] how fast the loss can grow with the distance: the dual norm of the gradient."""
        return torch.where(self.linf(), total(grad.abs()), length(grad)).clamp_min(1e-12)

    def _resize(self, hit: Tensor, reached: Tensor, missing: Tensor) -> None:
        """Shrink the ball below the nearest that fooled, or let it grow to the boundary."""
        gamma = annealed(self.gamma, 0.001, self.t, self.steps).float()
        self.found |= hit
        self.nearest.copy_(torch.where(hit, torch.minimum(self.nearest, reached), self.nearest))
        inner = torch.minimum(self.epsilon * (1 - gamma), self.nearest)
        estimate = reached + missing
        refuted = self.full & (estimate < (1 + _CLOSE) * self.epsilon)
        known = self.found | (missing < _CLOSE * reached) | (refuted & self.refuted)
        self.refuted |= refuted
        outer = torch.where(known, self.epsilon * (1 + gamma), estimate)
        farthest = torch.maximum(self.x0, 1 - self.x0)
        limit = torch.where(self.linf(), farthest.amax((1, 2, 3)), length(farthest))
        self.epsilon.copy_(torch.minimum(torch.where(hit, inner, outer), limit))
