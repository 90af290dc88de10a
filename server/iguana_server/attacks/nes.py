"""Natural evolution strategies: Ilyas et al. 2018, arXiv:1804.08598."""

from torch import Tensor

from iguana_server.attacks.base import param
from iguana_server.attacks.estimate import Estimate
from iguana_server.attacks.queries import wide


class NES(Estimate):
    """The gradient is estimated from antithetic pairs of Gaussian probes; m pairs of d pixels make a cosine of sqrt(m / (m + d + 1))."""

    name = "nes"
    paper = "Ilyas et al. 2018, arXiv:1804.08598"

    sigma: Tensor = param(
        0.001, low=0, high=1, doc="standard deviation of the probes, in units of a [0, 1] pixel"
    )
    pairs: Tensor = param(25, low=1, high=5000, kind="int", doc="number of pairs of probes a move")

    def width(self) -> Tensor:
        """As asked."""
        return self.pairs

    def aim_probe(self, number: Tensor) -> Tensor:
        """sigma N(0, I)."""
        return wide(self.sigma) * self.draw_normal(number)
