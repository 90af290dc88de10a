"""DeepFool: Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import FIRST_SUCCESS, param, state
from iguana_server.attacks.minimumnorm import MinimumNorm, length, spread


class DeepFool(MinimumNorm):
    """Step to the nearest boundary as if all were planes, in L2, until the point fools; each rival class is a look.

    The loss that heads for a class must be 0 where that class begins to win: the margin, or DLR.
    """

    name = "deepfool"
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"
    default_loss = "margin"
    losses = ("margin", "dlr")
    default_stop = FIRST_SUCCESS

    steps: Tensor = param(50, low=1, high=10_000, kind="int", doc="number of moves")
    rivals: Tensor = param(
        9,
        low=1,
        high=1000,
        kind="int",
        doc="likeliest other classes whose boundaries are looked at for a move; all, if there are fewer",
    )
    overshoot: Tensor = param(0.02, low=0, high=10, doc="share by which the change is made larger")

    rank: Tensor = state(dtype=torch.int64)  # of the rival that is looked at
    moves: Tensor = state(dtype=torch.int64)
    reach: Tensor = state()  # distance to the nearest boundary so far
    slope: Tensor = state()  # |way|
    way: Tensor = state("image")  # gradient that leads there
    change: Tensor = state("image")  # all moves together, without overshoot and box

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """One a rival and a move."""
        return values["rivals"] * values["steps"]

    def opens(self) -> Tensor:
        """All rows: the clean image tells the rivals."""
        return torch.ones_like(self.done)

    def aims(self) -> tuple[Tensor, Tensor]:
        """The rival whose turn it is, or the target."""
        seen = self.clean >= 0
        return torch.where(seen, self.rival(self.rank), self.label), seen | self.targeted

    def judged(self) -> Tensor:
        """Once at each point."""
        return self.rank == 0

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """After the last rival: x <- clip(x0 + (1 + overshoot) r), r grown by the way to the nearest boundary."""
        self.spent |= self.gap(logits) > 0
        slope = length(grad)
        reach = loss.abs() / (slope + 1e-8)
        nearer = (self.rank == 0) | (reach < self.reach)
        self.reach.copy_(torch.where(nearer, reach, self.reach))
        self.slope.copy_(torch.where(nearer, slope, self.slope))
        ops.keep_(self.way, grad, nearer)
        most = torch.where(self.targeted, 1, self.rivals.clamp_max(logits.shape[1] - 1))
        over = ~self.spent & (self.rank + 1 >= most)
        stride = torch.where(over, (self.reach + 1e-4) / (self.slope + 1e-8), 0.0)
        self.change.add_(spread(stride) * self.way)
        x = (self.x0 + spread(1 + self.overshoot) * self.change).clamp_(0, 1)
        ops.keep_(self.x, x, over)
        self.rank.copy_(torch.where(over | self.spent, 0, self.rank + 1))
        self.moves += over
        self.spent |= self.moves == self.steps
