"""Fast adaptive boundary attack, targeted: Croce and Hein 2020, arXiv:1907.02044, algorithm 1 and section 4 on FAB-T."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.minimumnorm import LINF, MinimumNorm, dot, length, spread

_SLACK = 1e-6  # of a distance in float32
_NEWTON = 8  # steps of the projection: nine tenths of the way to the box's corner take 6


class FAB(MinimumNorm):
    """Step to the boundary with one rival as if it were a plane, drawn to the image; go back towards it after crossing.

    Each try heads for another of the likeliest classes. The loss must be 0 where that class
    begins to win: the margin, or DLR. A step that has crossed the boundary takes a second look.
    """

    name = "fab"
    paper = "Croce and Hein 2020, arXiv:1907.02044"
    default_loss = "margin"
    losses = ("margin", "dlr")

    metric: Tensor = param(
        LINF, low=0, high=1, kind="choice", choices=("l2", "linf"), doc="the norm that is made small"
    )
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of steps to the boundary")
    alpha_max: Tensor = param(0.1, low=0, high=1, doc="greatest weight of the image's own step")
    eta: Tensor = param(1.05, low=1, high=10, doc="by how much steps go beyond the boundary")
    beta: Tensor = param(0.9, low=0, high=1, doc="share of the change that is left after going back")

    limit: Tensor = state(fill=math.inf)  # distance beyond which nothing is judged
    targets: Tensor = state(dtype=torch.int64, fill=9)  # tries that differ
    moves: Tensor = state(dtype=torch.int64)
    back: Tensor = state(dtype=torch.bool)  # x has been drawn to the image since the last step

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """Two a step, but one for the first."""
        return 2 * values["steps"] - 1

    def linf(self) -> Tensor:
        """As asked."""
        return self.metric == LINF

    def opens(self) -> Tensor:
        """All rows: the clean image tells the rivals."""
        return torch.ones_like(self.done)

    def begin(self) -> None:
        """Nothing moves. A target has but one try."""
        self.spent |= self.targeted & (self.restart % self.targets > 0)

    def aims(self) -> tuple[Tensor, Tensor]:
        """The rival of this try, or the target."""
        seen = self.clean >= 0
        return torch.where(seen, self.rival(self.restart % self.targets), self.label), seen | self.targeted

    def observe(self, z: Tensor, logits: Tensor, loss: Tensor, judged: Tensor) -> None:
        """Judge what lies near enough."""
        super().observe(z, logits, loss, judged & (self.distance(z) <= self.limit + _SLACK))

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- x0 + beta (x - x0) where x fools; else to the plane, with a weight alpha from x0."""
        draw = ~self.spent & ~self.back & (self.gap(logits) > 0)
        go = ~self.spent & ~draw
        d = self.x - self.x0
        linf = self.linf()
        near, far = project(
            torch.cat([self.x, self.x0]),
            torch.cat([grad, grad]),
            torch.cat([-loss, dot(grad, d) - loss]),
            torch.cat([linf, linf]),
        ).chunk(2)
        one, other = self._size(near), self._size(far)
        alpha = spread(torch.minimum(one / (one + other), self.alpha_max))
        eta = spread(self.eta)
        x = (self.x + eta * near) * (1 - alpha) + (self.x0 + eta * far) * alpha
        ops.keep_(self.x, x.clamp_(0, 1), go)
        ops.keep_(self.x, self.x0 + spread(self.beta) * d, draw)
        self.back.copy_(draw)
        self.moves += go
        self.spent |= self.moves == self.steps

    def _size(self, change: Tensor) -> Tensor:
        """[n] in the row's norm, above 0."""
        return torch.where(self.linf(), change.abs().amax((1, 2, 3)), length(change)).clamp_min(1e-8)


def project(p: Tensor, w: Tensor, missing: Tensor, linf: Tensor) -> Tensor:
    """Return the smallest change d with <w, d> = missing and p + d in [0, 1], or the most that the box allows.

    p, w: [n, C, H, W], p in the box; missing: [n]; linf: [n] bool, smallest in Linf, else in L2. The change is
    clip(p + s u) - p with u = sign(w) or w. <w, d> = sum_i w_i u_i min(s, cap_i) is concave in s >= 0 and of
    pieces of lines, so that Newton's method from 0 never passes the solution.
    """
    w = torch.where((missing < 0).view(-1, 1, 1, 1), -w, w)
    u = torch.where(linf.view(-1, 1, 1, 1), w.sign(), w)
    room = torch.where(u > 0, 1 - p, p)
    cap = room / u.abs()  # what a pixel can move, in units of s
    # Sums of what is not negative, by native norms: roots are taken once.
    pull, wall = ((w * v).abs().double().sqrt().float() for v in (u, room))
    s = torch.zeros_like(missing)
    for _ in range(_NEWTON):
        free = cap > spread(s)
        slope = length(pull * free).square()
        held = length(wall * ~free).square()
        s = torch.where(slope > 0, torch.maximum(s, (missing.abs() - held) / slope), s)
    return (p + spread(s) * u).clamp_(0, 1) - p
