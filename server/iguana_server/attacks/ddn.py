"""Decoupled direction and norm: Rony et al. 2019, arXiv:1811.09600, algorithm 1."""

import torch
from torch import Tensor

from iguana_server.attacks.base import param, state
from iguana_server.attacks.minimumnorm import MinimumNorm, annealed, length, spread


class DDN(MinimumNorm):
    """Climb the loss on a sphere around the image that shrinks where the point fools and grows where it does not.

    Where the gradient is zero the direction stays as it is; the authors' code draws one at random.
    """

    name = "ddn"
    paper = "Rony et al. 2019, arXiv:1811.09600"

    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves")
    initial_epsilon: Tensor = param(
        1.0, low=0, high=1000, doc="L2 radius of the first sphere, in units of a [0, 1] pixel"
    )
    gamma: Tensor = param(0.05, low=0, high=1, doc="share by which the radius changes at a move")

    epsilon: Tensor = state()  # radius of the sphere

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- clip(x0 + epsilon d / |d|), d = x - x0 + alpha grad / |grad|."""
        alpha = annealed(1.0, 0.01, self.t, self.steps)
        d = grad / spread(length(grad).clamp_min(1e-12))
        d = (self.x - self.x0).add_(spread(alpha) * d)
        self.epsilon.copy_(torch.where(self.t == 0, self.initial_epsilon, self.epsilon))
        self.epsilon.mul_(torch.where(self.gap(logits) > 0, 1 - self.gamma, 1 + self.gamma))
        farthest = length(torch.maximum(self.x0, 1 - self.x0))
        self.epsilon.copy_(torch.minimum(self.epsilon, farthest))
        d *= spread(self.epsilon / length(d).clamp_min(1e-12))
        self.x.copy_(d.add_(self.x0).clamp_(0, 1))
