"""The momentum iterative method: Dong et al. 2018, arXiv:1710.06081."""

from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param, state
from iguana_server.attacks.pgd import STRIDE


class MIFGSM(Attack):
    """PGD along an average of the gradients, each scaled to unit mean absolute value."""

    name = "mifgsm"
    paper = "Dong et al. 2018, arXiv:1710.06081"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    alpha: Tensor = param(
        2 / 255, low=0, high=1, doc="length of a step, in units of a [0, 1] pixel", rule=STRIDE
    )
    steps: Tensor = param(10, low=1, high=10_000, kind="int", doc="number of moves")
    decay: Tensor = param(1.0, low=0, high=10, doc="weight of the past gradients (mu)")
    momentum: Tensor = state("image")

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Average, then step by the average's sign."""
        ops.momentum_(self.momentum, grad, self.decay)
        ops.linf_step_(self.x, self.x0, self.momentum, self.epsilon, self.alpha)
