"""Free optimisation of the smallest L2 change: Carlini and Wagner 2017, arXiv:1608.04644, section VI."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.minimumnorm import MinimumNorm, length, spread

_INSIDE = 0.999999  # of [-1, 1]: atanh of the ends is infinite
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # of Adam
_MOST = 1e10  # that the constant becomes
_REPEATS = 10  # searches from which on the last repeats the best constant
_CHECKS = 10  # of progress, in a search


class CW(MinimumNorm):
    """Minimise |x - x0|^2 + c max(confidence - margin, 0) by Adam, x = (tanh w + 1) / 2, and search for the least c.

    Each row has its own constant, its own search and its own end of a search that makes no
    progress, so that no answer depends on the batch.
    """

    name = "cw"
    paper = "Carlini and Wagner 2017, arXiv:1608.04644"
    default_loss = "margin"

    binary_steps: Tensor = param(
        9, low=1, high=20, kind="int", doc="number of searches, each with a constant of its own"
    )
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves in a search")
    rate: Tensor = param(0.01, low=0, high=10, doc="learning rate of Adam, in units of w")
    initial_const: Tensor = param(0.001, low=0, high=1e6, doc="weight of the loss in the first search (c)")
    confidence: Tensor = param(0, low=0, high=1000, doc="margin in logits that counts as success (kappa)")
    abort_early: Tensor = param(
        1, low=0, high=1, kind="bool", doc="end a search that makes no progress in a tenth of its moves"
    )

    start: Tensor = state("image")  # w of the image
    w: Tensor = state("image")
    first: Tensor = state("image")  # moments of Adam
    second: Tensor = state("image")
    fade1: Tensor = state(dtype=torch.float64, fill=1)  # powers of beta
    fade2: Tensor = state(dtype=torch.float64, fill=1)
    const: Tensor = state(dtype=torch.float64)
    low: Tensor = state(dtype=torch.float64)  # greatest constant that did not do
    high: Tensor = state(dtype=torch.float64, fill=math.inf)  # least that did
    found: Tensor = state(dtype=torch.bool)  # in this search
    search: Tensor = state(dtype=torch.int64)  # searches made
    age: Tensor = state(dtype=torch.int64)  # moves in this search
    objective: Tensor = state(fill=math.inf)  # at the last check

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """One a move."""
        return values["binary_steps"] * values["steps"]

    def opens(self) -> Tensor:
        """All rows: in w the image is not quite itself."""
        return torch.ones_like(self.done)

    def begin(self) -> None:
        """W <- atanh(2 x0 - 1)."""
        inside = (2 * self.x0 - 1) * _INSIDE
        self.start.copy_(inside.double().atanh())  # in float32 its bits depend on the place in the batch
        self.w.copy_(self.start)
        self.x.copy_(_picture(self.w.tanh()))
        self.const.copy_(self.initial_const)

    def score(self, z: Tensor, loss: Tensor, margin: Tensor) -> Tensor:
        """Minus the distance of what reaches the goal by the confidence; of all else the margin, and lower."""
        enough = (margin > 0) & (margin >= self.confidence)
        return torch.where(enough, -self.distance(z), margin - self.confidence - math.sqrt(z[0].numel()))

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Move w by Adam; at its end, begin the next search."""
        gap = self.gap(logits)
        self.found |= (gap > 0) & (gap >= self.confidence)
        tanh = self.w.tanh()
        change = self.x - _picture(self.start.tanh())
        weight = torch.where(gap < self.confidence, self.const, 0.0)
        descent = (2 * change - spread(weight) * grad) * ((1 - tanh * tanh) / 2)
        self._descend(descent)
        objective = length(change).square() + (self.const * (self.confidence - gap).clamp_min(0)).float()
        check = self.abort_early & (self.age % ((self.steps + _CHECKS - 1) // _CHECKS) == 0)
        stalled = check & ~(objective <= 0.9999 * self.objective)
        self.objective.copy_(torch.where(check, objective, self.objective))
        self.age += 1
        self._next(stalled | (self.age == self.steps))
        self.x.copy_(_picture(self.w.tanh()))

    def _descend(self, descent: Tensor) -> None:
        """One move of Adam (Kingma and Ba 2015)."""
        self.fade1 *= _BETA1
        self.fade2 *= _BETA2
        self.first.mul_(_BETA1).add_((1 - _BETA1) * descent)
        self.second.mul_(_BETA2).add_((1 - _BETA2) * descent.square())
        root = (self.second / spread(1 - self.fade2)).sqrt_()
        rate = torch.where(self.spent, 0.0, self.rate)
        self.w.sub_(spread(rate) * (self.first / spread(1 - self.fade1)) / root.add_(_TINY))

    def _next(self, over: Tensor) -> None:
        """Begin another search, from the image, where one is over: ten times the constant, or between two."""
        self.high.copy_(torch.where(over & self.found, self.const, self.high))
        self.low.copy_(torch.where(over & ~self.found, self.const, self.low))
        const = torch.where(torch.isinf(self.high), self.const * 10, (self.low + self.high) / 2)
        last = (self.search + 2 == self.binary_steps) & (self.binary_steps >= _REPEATS)
        const = torch.where(last, self.high, const).clamp_max(_MOST)
        self.const.copy_(torch.where(over, const, self.const))
        ops.keep_(self.w, self.start, over)
        for column, value in (
            (self.first, 0),
            (self.second, 0),
            (self.fade1, 1),
            (self.fade2, 1),
            (self.found, 0),
            (self.age, 0),
            (self.objective, math.inf),
        ):
            column.masked_fill_(over.view(-1, *[1] * (column.dim() - 1)), value)
        self.search += over
        self.spent |= self.search == self.binary_steps


def _picture(tanh: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return tanh * 0.5 + 0.5
