"""FGSM after a random step: Tramer et al. 2018, arXiv:1705.07204."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, Rule, param
from iguana_server.attacks.noise import normal


class RFGSM(Attack):
    """A random sign step of length alpha, then one of epsilon - alpha along the gradient's sign."""

    name = "rfgsm"
    paper = "Tramer et al. 2018, arXiv:1705.07204"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    alpha: Tensor = param(
        4 / 255,
        low=0,
        high=1,
        doc="length of the random step, at most epsilon, in units of a [0, 1] pixel",
        rule=Rule("epsilon / 2", lambda c: c["epsilon"] / 2),
    )

    @classmethod
    def faults(cls, values: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        """Alpha beyond epsilon would turn the gradient's step round."""
        over = values["alpha"] > values["epsilon"]
        if not over.any():
            return []
        row = int(over.nonzero()[0])
        alpha, epsilon = float(values["alpha"][row]), float(values["epsilon"][row])
        return [("alpha", f"want at most epsilon = {epsilon:g}, got {alpha:g}")]

    def opens(self) -> Tensor:
        """All rows start off the image."""
        return torch.ones_like(self.done)

    def begin(self) -> None:
        """x <- x0 + alpha sign(N(0, I))."""
        ops.linf_step_(self.x, self.x0, normal(self), self.epsilon, self.alpha)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- x + (epsilon - alpha) sign(grad)."""
        ops.linf_step_(self.x, self.x0, grad, self.epsilon, self.epsilon - self.alpha)
