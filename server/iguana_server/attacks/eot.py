"""Expectation over transformation: Athalye et al. 2018, arXiv:1707.07397."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param, state
from iguana_server.attacks.noise import draws_and_normal
from iguana_server.attacks.pgd import STRIDE
from iguana_server.transforms.camera import DRAWS, camera
from iguana_server.transforms.rows import laid_out, pullback

STRENGTHS = (
    *("rotation", "scale", "shift", "perspective", "brightness"),
    *("contrast", "blur", "noise", "jpeg"),
)


class Photographed(Attack):
    """What attacks share that look at photographs of their picture: `copies` a move, each drawn anew.

    A photograph is not a candidate: only the first and the last iterate are judged, and stopping early does not
    apply. With copies = 0 the picture itself is looked at, once a move, and judged.
    """

    copies: Tensor = param(0, low=0, high=1000, kind="int", doc="photographs a move; 0: the picture itself")
    rotation: Tensor = param(15, low=0, high=180, doc="most rotation, either way, in degrees")
    scale: Tensor = param(0.1, low=0, high=0.5, doc="most change of scale, either way, as a share")
    shift: Tensor = param(0.05, low=0, high=0.5, doc="most shift, either way, as a share of the side")
    perspective: Tensor = param(0.05, low=0, high=0.2, doc="most move of a corner, as a share of the side")
    brightness: Tensor = param(0.1, low=0, high=1, doc="most light added or taken, in units of a pixel")
    contrast: Tensor = param(0.2, low=0, high=1, doc="most change of contrast, either way, as a share")
    blur: Tensor = param(1, low=0, high=5, doc="largest standard deviation of the blur, in pixels")
    noise: Tensor = param(
        0.02, low=0, high=1, doc="largest standard deviation of the noise, in units of a pixel"
    )
    jpeg: Tensor = param(50, low=0, high=99, doc="100 - the least quality of the JPEG")
    total: Tensor = state("image")  # of the gradients since the last move

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """One a photograph and move."""
        return values["steps"] * values["copies"].clamp_min(1)

    def opens(self) -> Tensor:
        """Rows that look at photographs: the clean image is looked at as it is."""
        return self.copies > 0

    def judged(self) -> Tensor:
        """Rows that look at the picture itself."""
        return self.copies == 0

    def points(self) -> Tensor:
        """A photograph of the iterate."""
        return laid_out(self._seen(self.candidates()), self.x)

    def add(self, grad: Tensor) -> Tensor:
        """Add the gradient in the picture to `total`; returns the rows [n] that have seen all copies of this move."""
        copy, copies = self.t % self.copies.clamp_min(1), self.copies.clamp_min(1)
        grad = pullback(self._seen, self.candidates(), grad)
        self.total.copy_(torch.where((copy == 0).view(-1, 1, 1, 1), grad, self.total + grad))
        return copy == copies - 1

    def _seen(self, x: Tensor) -> Tensor:
        u, normal = draws_and_normal(self, DRAWS)
        some = self.copies > 0
        return camera(x, u, normal, {name: getattr(self, name) * some for name in STRENGTHS})


class EOT(Photographed):
    """PGD along the mean gradient of random photographs of the picture: what it makes survives a camera."""

    name = "eot"
    paper = "Athalye et al. 2018, arXiv:1707.07397"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    alpha: Tensor = param(
        2 / 255, low=0, high=1, doc="length of a step, in units of a [0, 1] pixel", rule=STRIDE
    )
    steps: Tensor = param(10, low=1, high=10_000, kind="int", doc="number of moves")
    copies: Tensor = param(10, low=0, high=1000, kind="int", doc="photographs a move; 0: the picture itself")

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """When all copies are seen: x <- clip(x + alpha sign(total))."""
        due, x = self.add(grad), self.x.clone()
        ops.linf_step_(x, self.x0, self.total, self.epsilon, self.alpha)
        ops.keep_(self.x, x, due)
