"""Targeted Auto-PGD: Croce and Hein 2020, arXiv:2003.01690, section 5."""

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.apgd import APGD
from iguana_server.attacks.base import state


class APGDT(APGD):
    """Auto-PGD towards each of the likeliest other classes in turn, one a try.

    What is aimed at is that class; what is judged is the caller's goal. A row whose goal is a class aims at
    it in every try.
    """

    name = "apgdt"
    default_loss = "dlr"
    evades = False  # its loss is not of the goal

    targets: Tensor = state(dtype=torch.int64, fill=9)  # classes aimed at

    def opens(self) -> Tensor:
        """All rows: which classes are likeliest is seen in the clean image."""
        return torch.ones_like(self.done)

    def begin(self) -> None:
        """As Auto-PGD, for rows with a random start."""
        start = self.x.clone()
        super().begin()
        ops.keep_(self.x, start, ~self.random_start)

    def aims(self) -> tuple[Tensor, Tensor]:
        """The class of rank 1 + restart mod targets in the clean image, from 0."""
        rank = 1 + self.restart % self.targets
        order = self.before.sort(1)[1]
        likely = order.gather(1, order.shape[1] - 1 - rank[:, None])[:, 0]
        return torch.where(self.targeted, self.label, likely), torch.ones_like(self.targeted)
