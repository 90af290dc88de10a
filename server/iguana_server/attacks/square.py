"""The Square attack in an Linf ball: Andriushchenko et al. 2020, arXiv:1912.00049."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.queries import Query, wide

_HALVINGS = (
    10,
    50,
    200,
    500,
    1000,
    2000,
    4000,
    6000,
    8000,
)  # proposals of 10000 after which the share halves
_PASSED_OVER = 2  # most proposals between two looks


class Square(Query):
    """Random search: a square of the image is set to a corner of the ball, and kept if the loss rises.

    The schedule of the squares' sizes is stretched to the budget. A square may touch the last line and
    column, as in the paper; the authors' code leaves these out.
    """

    name = "square"
    paper = "Andriushchenko et al. 2020, arXiv:1912.00049"
    default_loss = "margin"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    p: Tensor = param(0.8, low=0, high=1, doc="share of the image that the first squares cover")

    sparing: Tensor = state(dtype=torch.bool)  # a proposal that changes nothing counts without a look
    held: Tensor = state("image")  # the best proposal so far
    held_loss: Tensor = state()

    def begin(self) -> None:
        """Stripes: each column of each channel at a random end of the ball."""
        channels, _, width = self.x0.shape[1:]
        u = self.draw(self.t, channels * width).view(-1, channels, 1, width)
        self.x.copy_((self.x0 + wide(self.epsilon) * signs(u)).clamp_(0, 1))

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Keep the proposal if it is the first or better, and make another."""
        better = (self.t == 0) | (loss > self.held_loss)
        ops.keep_(self.held, self.x, better)
        self.held_loss.copy_(torch.where(better, loss, self.held_loss))
        self.propose()
        self._pass_over()
        self.spent |= self.ends()

    def _pass_over(self) -> None:
        """Go on to the next proposal where this one is the held image, which would say what it has said.

        To propose again changes nothing in the other rows: a proposal follows from t and the held image alone.
        """
        for _ in range(_PASSED_OVER):
            idle = self.sparing & ~self.ends()
            if not bool(idle.any()):
                return  # plain square: nothing is compared
            idle &= ops.l2_distance(self.x, self.held) == 0
            if not bool(idle.any()):
                return
            self.t += idle
            self.propose()

    def propose(self) -> None:
        """x <- the held one, but x0 +- epsilon in a square, with a sign for each channel."""
        channels, height, width = self.x0.shape[1:]
        u = self.draw(self.t + 1, 2 + channels)
        side = self.side()
        i, j = inside(u[:, 0], side, height).unsqueeze(2), inside(u[:, 1], side, width).unsqueeze(1)
        square = within(i, side) & within(j, side)
        colour = wide(self.epsilon) * signs(u[:, 2:])[:, :, None, None]
        self.x.copy_(torch.where(square[:, None], (self.x0 + colour).clamp_(0, 1), self.held))

    def side(self) -> Tensor:
        """[n] side of the next square, in pixels: 1 to the image's shorter side."""
        height, width = self.x0.shape[2:]
        at = (self.t.double() / (self.queries - 2) * 10_000).long()
        halvings = torch.bucketize(at, torch.tensor(_HALVINGS, device=at.device))
        share = self.p.double() / (1 << halvings)
        return (share * height * width).sqrt().round().long().clamp(1, min(height, width))


def signs(u: Tensor) -> Tensor:
    """-1 or 1, of uniform numbers in [0, 1)."""
    return torch.where(u < 0.5, -1.0, 1.0)


def inside(u: Tensor, side: Tensor, length: int) -> Tensor:
    """[n, length] int64: each line's place in a window of so many lines [n], set off by u [n] in [0, 1)."""
    start = (u.double() * (length - side + 1)).long()
    return torch.arange(length, device=u.device) - start[:, None]


def within(place: Tensor, side: Tensor) -> Tensor:
    """Whether places [n, ...] are those of a window of so many lines [n]."""
    return (place >= 0) & (place < side.view(-1, *[1] * (place.dim() - 1)))
