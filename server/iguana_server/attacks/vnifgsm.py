"""NI-FGSM with variance tuning: Wang and He 2021, arXiv:2103.15571."""

import torch
from torch import Tensor

from iguana_server.attacks.vmifgsm import VMIFGSM


class VNIFGSM(VMIFGSM):
    """VMI-FGSM whose iterate's gradient is taken where the momentum is about to lead.

    Those points lie off the ball, so only the first and the last iterate are judged:
    stopping early does not apply.
    """

    name = "vnifgsm"
    paper = "Wang and He 2021, arXiv:2103.15571"

    def opens(self) -> Tensor:
        """All rows: the clean image is judged before, not on the way."""
        return torch.ones_like(self.done)

    def judged(self) -> Tensor:
        """None: the points lie off the ball."""
        return torch.zeros_like(self.done)

    def centre(self) -> Tensor:
        """x + decay alpha momentum, not clipped."""
        return self.x + (self.decay * self.alpha).view(-1, 1, 1, 1) * self.momentum
