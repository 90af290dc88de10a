"""The numerical gradient, a pixel at a time, as CS230 and CS231n teach it; ZOO's estimator, Chen et al. 2017."""

import torch
from torch import Tensor

from iguana_server.attacks.base import Rule, param
from iguana_server.attacks.estimate import Estimate
from iguana_server.attacks.queries import wide


class Differences(Estimate):
    """Central differences (f(x + h e) - f(x - h e)) / 2h along every pixel and channel: 2 d looks a gradient.

    They are taken in the order of [C, H, W]; where the budget ends before, the pixels that were not reached stay.
    """

    name = "differences"
    paper = "Chen et al. 2017, arXiv:1708.03999, eq. 6"

    alpha: Tensor = param(
        8 / 255,
        low=0,
        high=1,
        doc="length of a step, in units of a [0, 1] pixel",
        rule=Rule("epsilon", lambda c: c["epsilon"].clone()),
    )
    h: Tensor = param(0.001, low=0, high=1, doc="size of the probes, in units of a [0, 1] pixel")

    def width(self) -> Tensor:
        """One for each pixel and channel."""
        return torch.full_like(self.place, self.x0[0].numel())

    def aim_probe(self, number: Tensor) -> Tensor:
        """h at the next pixel."""
        at = torch.arange(self.x0[0].numel(), device=self.x0.device).view(self.x0.shape[1:])
        return self.laid_out(wide(self.h) * (at == wide((self.place - 1) // 2)))
