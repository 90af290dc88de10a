"""Projected gradient descent in an Linf ball: Madry et al. 2018, arXiv:1706.06083."""

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, Rule, param
from iguana_server.attacks.noise import uniform

STRIDE = Rule(
    "2.5 epsilon / steps, at most epsilon",  # Madry et al. 2018: the ball can be crossed, and then some
    lambda c: torch.minimum(c["epsilon"], 2.5 * c["epsilon"] / c["steps"]),
)


class PGD(Attack):
    """Climb the loss by the gradient's sign; stay within epsilon of the clean image."""

    name = "pgd"
    paper = "Madry et al. 2018, arXiv:1706.06083"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    alpha: Tensor = param(
        2 / 255, low=0, high=1, doc="length of a step, in units of a [0, 1] pixel", rule=STRIDE
    )
    steps: Tensor = param(10, low=1, high=10_000, kind="int", doc="number of moves")
    random_start: Tensor = param(0, low=0, high=1, kind="bool", doc="start at a uniform point of the ball")

    def opens(self) -> Tensor:
        """Rows with a random start."""
        return self.random_start

    def begin(self) -> None:
        """x <- x0 + epsilon U(-1, 1)."""
        self.x.copy_(self.x0)
        self.x.add_(uniform(self).mul_(self.epsilon.view(-1, 1, 1, 1))).clamp_(0, 1)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- clip(x + alpha sign(grad))."""
        ops.linf_step_(self.x, self.x0, grad, self.epsilon, self.alpha)
