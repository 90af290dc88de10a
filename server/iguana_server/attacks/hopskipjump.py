"""HopSkipJump: Chen et al. 2020, arXiv:1904.02144."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.decision import BISECT, Bisection
from iguana_server.attacks.queries import wide

L2, LINF = 0, 1
PROBE, LEAP = 2, 3  # phases after START and BISECT
_FIRST = 0.1  # L2 length of the first probes
_LEAST = 1e-6  # of the distance: a shorter leap is given up


class HopSkipJump(Bisection):
    """At the boundary, the labels around say where it faces; leap that way, and come back to the boundary.

    The looks around are not judged, nor rounded to the grid. Probes are Gaussian directions in either norm
    (in Linf the authors draw from a cube), and the halving ends at theta / sqrt(d) of the way, for L2 and Linf.
    """

    name = "hopskipjump"
    paper = "Chen et al. 2020, arXiv:1904.02144"

    distance: Tensor = param(
        L2, low=0, high=1, kind="choice", choices=("l2", "linf"), doc="the distance that is made small"
    )
    probes: Tensor = param(
        100,
        low=1,
        high=10_000,
        kind="int",
        doc="looks around the first point of the boundary; sqrt(k) times as many around the k-th",
    )
    theta: Tensor = param(0.01, low=0, high=1, doc="length of the probes, as a share of the distance")

    direction: Tensor = state("image")  # sum of the probes, by their answers; then where to leap
    drift: Tensor = state("image")  # sum of the probes
    agreed: Tensor = state()  # sum of the answers, +1 or -1
    seen: Tensor = state(dtype=torch.int64)  # probes made
    rounds: Tensor = state(dtype=torch.int64)
    far: Tensor = state()  # distance of the edge
    length: Tensor = state(fill=1)  # of the probes, then of the leap

    def tolerance(self) -> Tensor:
        """So that the probes are longer than what is left of the way."""
        return self.theta / math.sqrt(self.x0[0].numel())

    def distance_of(self, z: Tensor) -> Tensor:
        """[n] distance of z from the clean image, as asked."""
        largest = (z - self.x0).abs().amax((1, 2, 3))
        return torch.where(self.distance == L2, ops.l2_distance(z, self.x0), largest)

    def between(self, share: Tensor) -> Tensor:
        """On the line for L2; for Linf, the edge's changes cut to this share of the largest."""
        change = self.edge - self.x0
        bound = wide(share * change.abs().amax((1, 2, 3)))
        cut = self.x0 + torch.minimum(torch.maximum(change, -bound), bound)
        return torch.where(wide(self.distance == L2), super().between(share), cut)

    def judged(self) -> Tensor:
        """All looks but the probes."""
        return self.phase != PROBE

    def points(self) -> Tensor:
        """x, on the grid where it is judged."""
        return torch.where(wide(self.judged()), self.candidates(), self.x)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Take in the look, and choose the next by the phase."""
        hit, phase = self.hits(logits), self.phase.clone()
        arrived = self.halve(hit)
        faced = self._probe(hit, phase == PROBE)
        landed, lost = self._leap(hit, phase == LEAP)
        ready = arrived | lost
        self._ready(ready)
        for rows, then in ((ready, PROBE), (faced, LEAP), (landed, BISECT)):
            self.phase.masked_fill_(rows, then)
        noise = self.draw_normal(self.t + 1)
        noise = noise / wide(ops.l2_distance(noise, torch.zeros_like(noise)).clamp_min(1e-12))
        way = torch.where(wide(self.phase == LEAP), self.direction, noise)
        self.search((self.edge + wide(self.length) * way).clamp_(0, 1))

    def _probe(self, hit: Tensor, rows: Tensor) -> Tensor:
        """Add up the probes, eq. 16; [n] bool: rows that have all of theirs, and their direction."""
        answer = torch.where(hit, 1.0, -1.0)
        probe = (self.x - self.edge) / wide(self.length) * wide(rows)
        self.direction += wide(answer) * probe
        self.drift += probe
        self.agreed += answer * rows
        self.seen += rows
        most = (self.probes * (self.rounds + 1).double().sqrt()).long()
        full = rows & (self.seen >= most)
        mean = self.agreed / self.seen.clamp_min(1)
        mean = torch.where(mean.abs() < 1, mean, 0.0)
        way = self.direction - wide(mean) * self.drift
        size = ops.l2_distance(way, torch.zeros_like(way)).clamp_min(1e-12)
        way = torch.where(wide(self.distance == L2), way / wide(size), way.sign())
        ops.keep_(self.direction, way, full)
        self.length.copy_(torch.where(full, self.far / (self.rounds + 1).sqrt(), self.length))
        return full

    def _leap(self, hit: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[n] bool: rows that have landed where it fools, and rows that give up; the others leap half as far."""
        landed = rows & hit
        ops.keep_(self.edge, self.shown(self.x.clone()), landed)
        self.low.masked_fill_(landed, 0)
        self.high.masked_fill_(landed, 1)
        self.length.copy_(torch.where(rows & ~hit, self.length / 2, self.length))
        lost = rows & ~hit & (self.length < _LEAST * self.far)
        self.rounds += landed | lost
        return landed, lost

    def _ready(self, rows: Tensor) -> None:
        """Begin to probe around the edge."""
        self.far.copy_(torch.where(rows, self.distance_of(self.edge), self.far))
        for column in (self.direction, self.drift):
            column.masked_fill_(wide(rows), 0)
        self.agreed.masked_fill_(rows, 0)
        self.seen.masked_fill_(rows, 0)
        corner = torch.where(self.distance == L2, 1.0, math.sqrt(self.x0[0].numel()))
        length = torch.where(self.rounds == 0, _FIRST, self.theta * self.far * corner).clamp_min(1e-6)
        self.length.copy_(torch.where(rows, length, self.length))
