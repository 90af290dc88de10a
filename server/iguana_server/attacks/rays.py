"""RayS: Chen and Gu 2020, arXiv:2006.12792."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param, state
from iguana_server.attacks.decision import Decision
from iguana_server.attacks.queries import wide
from iguana_server.attacks.square import signs


class RayS(Decision):
    """Looks for the sign vector along which the boundary is nearest, by flipping blocks that are halved level by level.

    The distance is Linf. The first ray is all pixels down, as in the authors' code; where it does not fool at
    full length, rays of random signs follow until one does.
    """

    name = "rays"
    paper = "Chen and Gu 2020, arXiv:2006.12792"

    tolerance: Tensor = param(0.001, low=0, high=1, doc="L2 length of ray at which the search along it ends")

    ray: Tensor = state("image", fill=1)  # signs of the best direction
    reach: Tensor = state(fill=math.inf)  # Linf distance of the boundary along it
    level: Tensor = state(dtype=torch.int64)  # the image is cut in 2^level blocks
    block: Tensor = state(dtype=torch.int64)
    searching: Tensor = state(dtype=torch.bool)  # along the ray with the block flipped
    low: Tensor = state()  # does not fool
    high: Tensor = state()  # fools

    def begin(self) -> None:
        """The first ray: all pixels down."""
        self._aim()

    def distance_of(self, z: Tensor) -> Tensor:
        """[n] distance of z from the clean image: Linf."""
        return (z - self.x0).abs().amax((1, 2, 3))

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """A flip that does not fool at the distance reached is left; of one that does, the boundary is searched."""
        hit, searching, length = self.hits(logits), self.searching.clone(), self._length()
        starts = hit & ~searching
        self.high.copy_(torch.where(hit, length, self.high))
        self.low.copy_(torch.where(starts, 0.0, torch.where(searching & ~hit, length, self.low)))
        middle = (self.low + self.high) / 2
        near = (self.high - self.low) * math.sqrt(self.x0[0].numel()) <= self.tolerance
        over = searching & (near | (middle <= self.low) | (middle >= self.high))
        better = over & (self.high < self.reach)
        ops.keep_(self.ray, self._flipped(), better)
        self.reach.copy_(torch.where(better, self.high, self.reach))
        self.searching.copy_(starts | (searching & ~over))
        turns = over | ~(searching | hit)
        lost = turns & torch.isinf(self.reach)
        ops.keep_(self.ray, signs(self.draw_image(self.t + 1)), lost)
        self._turn(turns & ~lost)
        self._aim()

    def _length(self) -> Tensor:
        """[n] how far along the ray the next look is."""
        return torch.where(self.searching, (self.low + self.high) / 2, self.reach.clamp_max(1))

    def _flipped(self) -> Tensor:
        """[n, C, H, W] the ray with the block flipped."""
        size = self._size()
        at = torch.arange(self.x0[0].numel(), device=self.t.device).view(self.x0.shape[1:])
        start = wide(self.block * size)
        flips = (at >= start) & (at < start + wide(size))
        return self.laid_out(torch.where(flips, -self.ray, self.ray))

    def _size(self) -> Tensor:
        """[n] pixels of a block, rounded up."""
        blocks = 1 << self.level
        return (self.x0[0].numel() + blocks - 1) // blocks

    def _turn(self, rows: Tensor) -> None:
        """Go on to the next block, after the last to the first half as large."""
        size = self._size()
        last = (self.block + 1) * size >= self.x0[0].numel()
        self.block.copy_(torch.where(rows, torch.where(last, 0, self.block + 1), self.block))
        self.level += rows & last & (size > 1)

    def _aim(self) -> None:
        """x <- where the next look is along the ray with the block flipped."""
        self.x.copy_((self.x0 + wide(self._length()) * self._flipped()).clamp_(0, 1))
