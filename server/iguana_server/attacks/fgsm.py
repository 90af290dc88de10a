"""The fast gradient sign method: Goodfellow et al. 2015, arXiv:1412.6572."""

from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param


class FGSM(Attack):
    """One step of length epsilon along the gradient's sign."""

    name = "fgsm"
    paper = "Goodfellow et al. 2015, arXiv:1412.6572"

    epsilon: Tensor = param(
        8 / 255,
        low=0,
        high=1,
        doc="length of the step and radius of the Linf ball, in units of a [0, 1] pixel",
    )

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- x + epsilon sign(grad)."""
        ops.linf_step_(self.x, self.x0, grad, self.epsilon, self.epsilon)
