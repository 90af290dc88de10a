"""The Boundary attack: Brendel et al. 2018, arXiv:1712.04248."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.decision import Bisection
from iguana_server.attacks.queries import wide

TURN, PULL = 2, 3  # phases after START and BISECT
_WINDOW = 10  # looks after which a step is adapted
_FACTOR = 1.5


class Boundary(Bisection):
    """A random walk along the boundary: a turn around the clean image, and where that fools, a pull towards it.

    Both steps are shares of the L2 distance and adapt: turns to fool between 20 and 50 times in a hundred, pulls
    between 10 and 25. A turn is not made orthogonal before it is scaled back to the sphere: in d dimensions
    that makes a difference of 1 / sqrt(d) to its angle.
    """

    name = "boundary"
    paper = "Brendel et al. 2018, arXiv:1712.04248"

    spherical_step: Tensor = param(0.01, low=0, high=1, doc="first turn, as a share of the distance")
    source_step: Tensor = param(0.01, low=0, high=1, doc="first pull, as a share of the distance")

    turn: Tensor = state()
    pull: Tensor = state()
    turns: Tensor = state(dtype=torch.int64)  # looks in the window
    turns_hit: Tensor = state(dtype=torch.int64)
    pulls: Tensor = state(dtype=torch.int64)
    pulls_hit: Tensor = state(dtype=torch.int64)

    def tolerance(self) -> Tensor:
        """The walk goes on from there."""
        return torch.full_like(self.low, 0.01)

    def begin(self) -> None:
        """Noise, and the first steps."""
        super().begin()
        self.turn.copy_(self.spherical_step)
        self.pull.copy_(self.source_step)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """After a turn that fools, pull; after all else, turn from the nearest that fools."""
        hit, phase = self.hits(logits), self.phase.clone()
        turned, pulled = phase == TURN, phase == PULL
        arrived = self.halve(hit)
        before = self.distance_of(self.edge)
        ops.keep_(self.edge, self.x, pulled & hit & (self.distance_of(self.x) < before))
        self._adapt(hit, turned, pulled)
        self.phase.masked_fill_(arrived | turned | pulled, TURN)
        self.phase.masked_fill_(turned & hit, PULL)
        self.search(torch.where(wide(self.phase == PULL), self._pulled(), self._turned()))

    def _turned(self) -> Tensor:
        """[n, C, H, W] the edge, moved at random on its sphere around the clean image."""
        distance, noise = self.distance_of(self.edge), self.draw_normal(self.t + 1)
        size = ops.l2_distance(noise, torch.zeros_like(noise)).clamp_min(1e-12)
        way = self.edge - self.x0 + wide(self.turn * distance / size) * noise
        z = self.x0.clone()
        ops.l2_step_(z, self.x0, way, distance, distance)
        return z

    def _pulled(self) -> Tensor:
        """[n, C, H, W] x, moved towards the clean image to 1 - pull of the edge's distance."""
        distance, reached = self.distance_of(self.edge), self.distance_of(self.x).clamp_min(1e-12)
        share = (self.pull * distance + reached - distance).clamp_min(0) / reached
        return (self.x + wide(share) * (self.x0 - self.x)).clamp_(0, 1)

    def _adapt(self, hit: Tensor, turned: Tensor, pulled: Tensor) -> None:
        """After a window, make steps longer that fool often and shorter those that seldom do."""
        self.turns += turned
        self.turns_hit += turned & hit
        self.pulls += pulled
        self.pulls_hit += pulled & hit
        factor = _factor(self.turns, self.turns_hit, 0.2, 0.5)
        for step in (self.turn, self.pull):
            step.mul_(factor).clamp_(max=1)
        self.pull.mul_(_factor(self.pulls, self.pulls_hit, 0.1, 0.25)).clamp_(max=1)


def _factor(looks: Tensor, hits: Tensor, low: float, high: float) -> Tensor:
    """[n] by what a step changes; a window that is full begins anew."""
    full, share = looks == _WINDOW, hits / _WINDOW
    factor = torch.where(share > high, _FACTOR, torch.where(share < low, 1 / _FACTOR, 1.0))
    factor = torch.where(full, factor, 1.0)
    looks.masked_fill_(full, 0)
    hits.masked_fill_(full, 0)
    return factor
