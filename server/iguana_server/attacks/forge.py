"""Free optimisation towards a label: Szegedy et al. 2014, arXiv:1312.6199, as CS230 teaches it.

minimise loss(f(x), label) + penalty ||x - reference||_2^2 over x in [0, 1].
"""

from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param, state
from iguana_server.attacks.noise import uniform

IMAGE, NOISE, REFERENCE = 0, 1, 2
ADAM, SIGN = 0, 1


class Forge(Attack):
    """Any picture with the wanted label: from noise rubbish that the model is sure of, from an image a disguise."""

    name = "forge"
    paper = "Szegedy et al. 2014, arXiv:1312.6199, with Adam (Kingma and Ba 2015)"
    norm = "none"

    start: Tensor = param(
        IMAGE,
        low=0,
        high=2,
        kind="choice",
        choices=("image", "noise", "reference"),
        doc="where the search begins",
    )
    reference: Tensor = param(
        0, low=0, high=1, kind="image", doc="the picture to resemble; none: the sample's own"
    )
    penalty: Tensor = param(
        0.01, low=0, high=1e6, doc="weight of the squared L2 distance to the reference (lambda)"
    )
    rate: Tensor = param(0.01, low=0, high=1, doc="learning rate of Adam, or length of a sign step")
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves")
    optimizer: Tensor = param(
        ADAM, low=0, high=1, kind="choice", choices=("adam", "sign"), doc="the rule of a move"
    )
    first: Tensor = state("image")  # moments of Adam
    second: Tensor = state("image")

    def opens(self) -> Tensor:
        """Rows that do not start at the image."""
        return self.start != IMAGE

    def begin(self) -> None:
        """x <- noise in [0, 1), or the reference."""
        ops.keep_(self.x, uniform(self).add_(1).div_(2), self.start == NOISE)
        ops.keep_(self.x, self.reference, self.start == REFERENCE)

    def score(self, z: Tensor, loss: Tensor, margin: Tensor) -> Tensor:
        """Minus the whole objective."""
        return loss - self.penalty * ops.l2_distance(z, self.reference).square()

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """One move of Adam or by sign, down the objective."""
        descent = grad.neg()  # grad climbs minus the loss
        adam = self.optimizer == ADAM
        ops.forge_step_(
            self.x,
            self.first,
            self.second,
            self.reference,
            descent,
            self.t + 1,
            self.rate,
            self.penalty,
            adam,
        )
