"""What attacks share that estimate the gradient from answers, and then step by its sign."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Rule, param, state
from iguana_server.attacks.queries import Query, wide


class Estimate(Query):
    """A move is a look at x, which is judged, and pairs of looks at x + probe and x - probe, which are not.

    The probes are clipped to the box: what is shown is a picture. Where the budget ends amid the pairs, the
    last step is taken with those there are.
    """

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    alpha: Tensor = param(
        8 / 255 / 5,
        low=0,
        high=1,
        doc="length of a step, in units of a [0, 1] pixel",
        rule=Rule("epsilon / 5", lambda c: c["epsilon"] / 5),
    )

    place: Tensor = state(dtype=torch.int64)  # in the move: 0 at x, odd at x + probe, even at x - probe
    probe: Tensor = state("image")
    plus: Tensor = state()  # loss at x + probe
    estimate: Tensor = state("image")  # of the gradient, but for a factor

    @abstractmethod
    def width(self) -> Tensor:
        """[n] pairs of a move."""

    @abstractmethod
    def aim_probe(self, number: Tensor) -> Tensor:
        """[n, C, H, W] the next pair's probe, with this number of draw [n]."""

    def begin(self) -> None:
        """The clean image has been judged: the first pair follows."""
        self.place.fill_(1)
        self.probe.copy_(self.aim_probe(self.t))

    def judged(self) -> Tensor:
        """Looks at x itself."""
        return self.place == 0

    def points(self) -> Tensor:
        """x, or x +- probe."""
        sign = torch.where(self.place % 2 == 1, 1.0, -1.0)
        pair = (self.x + wide(sign) * self.probe).clamp_(0, 1)
        return torch.where(wide(self.judged()), self.candidates(), pair)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Add up the pairs' differences; when they are all there, x <- clip(x + alpha sign(estimate))."""
        fresh, plus = self.place == 0, self.place % 2 == 1
        minus = ~fresh & ~plus
        self.estimate.masked_fill_(wide(fresh), 0)
        self.estimate.add_(wide(torch.where(minus, self.plus - loss, 0.0)) * self.probe)
        self.plus.copy_(torch.where(plus, loss, self.plus))
        moves = (self.place == 2 * self.width()) | self.ends()
        x = self.x.clone()
        ops.linf_step_(x, self.x0, self.estimate, self.epsilon, self.alpha)
        ops.keep_(self.x, x, moves)
        self.place.copy_(torch.where(moves, 0, self.place + 1))
        ops.keep_(self.probe, self.aim_probe(self.t + 1), self.place % 2 == 1)
