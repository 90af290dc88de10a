"""The simple black-box attack in pixels: Guo et al. 2019, arXiv:1905.07121."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server.attacks.base import param, state
from iguana_server.attacks.queries import Query


class SimBA(Query):
    """Pixels in random order, none twice before all: each is moved down by alpha, else up, else left.

    There is no ball: k kept moves are an L2 distance of sqrt(k) alpha at most.
    """

    name = "simba"
    paper = "Guo et al. 2019, arXiv:1905.07121"
    norm = "none"

    alpha: Tensor = param(0.2, low=0, high=1, doc="length of a step, in units of a [0, 1] pixel")

    order: Tensor = state("image")  # the smallest is the next; one more each time
    pixel: Tensor = state(dtype=torch.int64)  # being tried, in C order of [C, H, W]
    value: Tensor = state()  # of this pixel before
    up: Tensor = state(dtype=torch.bool)
    held_loss: Tensor = state()

    def begin(self) -> None:
        """Shuffle the pixels and try the first."""
        self.order.copy_(self.draw_image(self.t))
        self.held_loss.copy_(self.loss)  # of the clean image, the only one judged yet
        self._next(torch.ones_like(self.done))

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Keep the pixel where the loss rose, else try it upwards, else put it back; go on to the next."""
        better = loss > self.held_loss
        self.held_loss.copy_(torch.where(better, loss, self.held_loss))
        again = ~better & ~self.up
        higher = (self.value + self.alpha).clamp(0, 1)
        at = self._at()
        self.x[at] = torch.where(better, self.x[at], torch.where(again, higher, self.value))
        self.up.copy_(again)
        self._next(~again)

    def _next(self, rows: Tensor) -> None:
        """Move the next pixel of these rows [n] down."""
        self.pixel.copy_(torch.where(rows, self.order.flatten(1).argmin(1), self.pixel))
        at = self._at()
        self.order[at] += rows
        self.value.copy_(torch.where(rows, self.x[at], self.value))
        self.x[at] = torch.where(rows, (self.value - self.alpha).clamp(0, 1), self.x[at])

    def _at(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The pixel as indices of [n, C, H, W]."""
        _, height, width = self.x0.shape[1:]
        rows = torch.arange(len(self.pixel), device=self.pixel.device)
        channel, at = self.pixel // (height * width), self.pixel % (height * width)
        return rows, channel, at // width, at % width
