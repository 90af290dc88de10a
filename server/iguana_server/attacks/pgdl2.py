"""Projected gradient descent in an L2 ball: Madry et al. 2018, arXiv:1706.06083."""

from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param
from iguana_server.attacks.noise import normal
from iguana_server.attacks.pgd import STRIDE


class PGDL2(Attack):
    """Climb the loss along the gradient; stay within epsilon of the clean image in L2."""

    name = "pgdl2"
    paper = "Madry et al. 2018, arXiv:1706.06083"
    norm = "l2"

    epsilon: Tensor = param(
        0.5, low=0, high=1000, doc="radius of the L2 ball over all pixels and channels of [0, 1]"
    )
    alpha: Tensor = param(0.125, low=0, high=1000, doc="L2 length of a step", rule=STRIDE)
    steps: Tensor = param(10, low=1, high=10_000, kind="int", doc="number of moves")
    random_start: Tensor = param(0, low=0, high=1, kind="bool", doc="start at a random point of the ball")

    def opens(self) -> Tensor:
        """Rows with a random start."""
        return self.random_start

    def begin(self) -> None:
        """Start in a uniform direction, at a uniform share of epsilon."""
        self.x.copy_(self.x0)
        # The share's counter lies beyond those of the moves, so that no draw is used twice.
        share = ops.philox_uniform(self.seed, self.sample, self.restart, self.t + (1 << 31), 1)[:, 0]
        ops.l2_step_(self.x, self.x0, normal(self), self.epsilon, self.epsilon * share)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- project(x + alpha grad / |grad|)."""
        ops.l2_step_(self.x, self.x0, grad, self.epsilon, self.alpha)
