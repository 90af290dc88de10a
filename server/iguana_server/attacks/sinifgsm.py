"""Scale-invariant NI-FGSM: Lin et al. 2020, arXiv:1908.06281."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.nifgsm import NIFGSM


class SINIFGSM(NIFGSM):
    """NI-FGSM along the mean gradient of copies of the picture, each half as bright as the one before."""

    name = "sinifgsm"
    paper = "Lin et al. 2020, arXiv:1908.06281"

    copies: Tensor = param(5, low=1, high=20, kind="int", doc="copies of the picture a move (m)")
    total: Tensor = state("image")  # of the gradients since the last move

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """One a copy and move."""
        return values["steps"] * values["copies"]

    def points(self) -> Tensor:
        """(x + decay alpha momentum) / 2^i, not clipped."""
        return super().points() / self._divisor()

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Add the copy's gradient; after the last copy, move along the mean as MI-FGSM does."""
        copy, grad = self.t % self.copies, grad / self._divisor()
        self.total.copy_(torch.where((copy == 0).view(-1, 1, 1, 1), grad, self.total + grad))
        due = copy == self.copies - 1
        momentum, x = self.momentum.clone(), self.x.clone()
        ops.momentum_(momentum, self.total / self.copies.view(-1, 1, 1, 1), self.decay)
        ops.linf_step_(x, self.x0, momentum, self.epsilon, self.alpha)
        ops.keep_(self.momentum, momentum, due)
        ops.keep_(self.x, x, due)

    def _divisor(self) -> Tensor:
        """[n, 1, 1, 1] 2^i of the copy that is looked at."""
        copy = self.t % self.copies
        return torch.bitwise_left_shift(torch.ones_like(copy), copy).view(-1, 1, 1, 1)
