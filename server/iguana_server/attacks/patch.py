"""Adversarial patch: Brown et al. 2017, arXiv:1712.09665, for one picture."""

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param
from iguana_server.attacks.eot import Photographed

SQUARE, MASK = 0, 1


class Patch(Photographed):
    """Any change, of some pixels only: a square, or those that a mask shows."""

    name = "patch"
    paper = "Brown et al. 2017, arXiv:1712.09665"
    norm = "none"

    shape: Tensor = param(
        SQUARE, low=0, high=1, kind="choice", choices=("square", "mask"), doc="which pixels may change"
    )
    mask: Tensor = param(
        0, low=0, high=1, kind="image", doc="values of 0.5 or more may change; none: the sample's own"
    )
    size: Tensor = param(0.3, low=0, high=1, doc="side of the square, as a share of the picture's shorter")
    top: Tensor = param(0, low=0, high=1, doc="room above the square, as a share of what is left")
    left: Tensor = param(0, low=0, high=1, doc="room to the left of the square, as a share of what is left")
    alpha: Tensor = param(8 / 255, low=0, high=1, doc="length of a step, in units of a [0, 1] pixel")
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves")

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """When all copies are seen: x <- clip(x + alpha sign(total)) within the patch."""
        due, x = self.add(grad), self.x.clone()
        ops.linf_step_(x, self.x0, self.total, torch.ones_like(self.alpha), self.alpha)
        self.x.copy_(torch.where(self.within() & due.view(-1, 1, 1, 1), x, self.x))

    def within(self) -> Tensor:
        """[n, C, H, W] bool: where the picture may change."""
        height, width = self.x.shape[2:]
        side = (self.size * min(height, width) + 0.5).floor()
        square = (
            self._span(height, side, self.top)[..., None] & self._span(width, side, self.left)[..., None, :]
        )
        return torch.where((self.shape == SQUARE).view(-1, 1, 1, 1), square[:, None], self.mask >= 0.5)

    def _span(self, length: int, side: Tensor, place: Tensor) -> Tensor:
        """[n, length] bool: the square's pixels along one axis."""
        start = ((length - side) * place + 0.5).floor()[:, None]
        i = torch.arange(length, device=side.device)
        return (i >= start) & (i < start + side[:, None])
