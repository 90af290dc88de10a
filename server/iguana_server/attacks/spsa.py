"""Simultaneous perturbation: Uesato et al. 2018, arXiv:1802.05666; Spall 1992."""

from torch import Tensor

from iguana_server.attacks.base import param
from iguana_server.attacks.estimate import Estimate
from iguana_server.attacks.queries import wide
from iguana_server.attacks.square import signs


class SPSA(Estimate):
    """The gradient is estimated from antithetic pairs of probes that move every pixel by delta, up or down.

    The step is by the estimate's sign, as NES's, not the paper's Adam.
    """

    name = "spsa"
    paper = "Uesato et al. 2018, arXiv:1802.05666"
    default_loss = "margin"

    delta: Tensor = param(0.01, low=0, high=1, doc="size of the probes, in units of a [0, 1] pixel")
    pairs: Tensor = param(25, low=1, high=5000, kind="int", doc="number of pairs of probes a move")

    def width(self) -> Tensor:
        """As asked."""
        return self.pairs

    def aim_probe(self, number: Tensor) -> Tensor:
        """delta times a random sign for each pixel and channel."""
        return wide(self.delta) * signs(self.draw_image(number))
