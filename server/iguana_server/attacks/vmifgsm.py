"""MI-FGSM with variance tuning: Wang and He 2021, arXiv:2103.15571."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.mifgsm import MIFGSM
from iguana_server.attacks.noise import uniform


class VMIFGSM(MIFGSM):
    """MI-FGSM whose gradients are corrected by how they differed in the last iterate's neighbourhood.

    Only the iterate is judged, not its neighbours.
    """

    name = "vmifgsm"
    paper = "Wang and He 2021, arXiv:2103.15571"

    neighbours: Tensor = param(20, low=1, high=100, kind="int", doc="points looked at around an iterate (N)")
    beta: Tensor = param(
        1.5, low=0, high=10, doc="radius of the neighbourhood, an Linf ball, in units of epsilon"
    )
    here: Tensor = state("image")  # gradient at the iterate
    total: Tensor = state("image")  # of the neighbours' gradients
    variance: Tensor = state("image")  # their mean less the iterate's, at the last move

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """One at the iterate and one at each neighbour, a move."""
        return values["steps"] * (1 + values["neighbours"])

    def judged(self) -> Tensor:
        """Rows that look at the iterate."""
        return self._neighbour() == 0

    def points(self) -> Tensor:
        """The iterate, or a uniform point of its neighbourhood, not clipped."""
        around = self.x + (self.epsilon * self.beta).view(-1, 1, 1, 1) * uniform(self)
        ops.keep_(around, self.centre(), self._neighbour() == 0)
        return around

    def centre(self) -> Tensor:
        """[n, C, H, W] where a move's first gradient is taken."""
        return self.candidates()

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Average the corrected gradient; when all neighbours are seen, tune the variance and move."""
        neighbour = self._neighbour()
        first, last = neighbour == 0, neighbour == self.neighbours
        momentum = self.momentum.clone()
        ops.momentum_(momentum, grad + self.variance, self.decay)
        ops.keep_(self.momentum, momentum, first)
        ops.keep_(self.here, grad, first)
        self.total.copy_(torch.where(first.view(-1, 1, 1, 1), 0.0, self.total + grad))
        ops.keep_(self.variance, self.total / self.neighbours.view(-1, 1, 1, 1) - self.here, last)
        x = self.x.clone()
        ops.linf_step_(x, self.x0, self.momentum, self.epsilon, self.alpha)
        ops.keep_(self.x, x, last)

    def _neighbour(self) -> Tensor:
        """[n] which neighbour is looked at, from 1; 0: the iterate."""
        return self.t % (1 + self.neighbours)
