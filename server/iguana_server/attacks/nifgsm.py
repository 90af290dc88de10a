"""MI-FGSM with Nesterov's look ahead: Lin et al. 2020, arXiv:1908.06281."""

import torch
from torch import Tensor

from iguana_server.attacks.mifgsm import MIFGSM


class NIFGSM(MIFGSM):
    """MI-FGSM whose gradient is taken where the momentum is about to lead.

    Those points lie off the ball, so only the first and the last iterate are judged:
    stopping early does not apply.
    """

    name = "nifgsm"
    paper = "Lin et al. 2020, arXiv:1908.06281"

    def opens(self) -> Tensor:
        """All rows: the clean image is judged before, not on the way."""
        return torch.ones_like(self.done)

    def judged(self) -> Tensor:
        """None: the points lie off the ball."""
        return torch.zeros_like(self.done)

    def points(self) -> Tensor:
        """x + decay alpha momentum, not clipped, as in the paper."""
        return self.x + (self.decay * self.alpha).view(-1, 1, 1, 1) * self.momentum
