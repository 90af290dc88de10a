"""The Square attack in an L2 ball: Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import param
from iguana_server.attacks.queries import wide
from iguana_server.attacks.square import Square, inside, signs, within

_TILES = 5  # a side, at the start
_TINY = 1e-12


class SquareL2(Square):
    """Random search: a window gets a pair of pyramids, paid for by another that is wiped out.

    The budget of a window is shared as AutoAttack's code has it: what is free by channels, what the windows
    held as a whole.
    """

    name = "squarel2"
    paper = "Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3"
    norm = "l2"

    epsilon: Tensor = param(
        0.5, low=0, high=1000, doc="radius of the L2 ball over all pixels and channels of [0, 1]"
    )

    def begin(self) -> None:
        """Five by five pairs of pyramids, of random signs."""
        channels, height, width = self.x0.shape[1:]
        side = max(min(height, width) // _TILES, 1)
        i, row = _tiling(height, side, self.t)
        j, column = _tiling(width, side, self.t)
        row, column = row.view(-1, 1), column.view(1, -1)
        covered = (row >= 0) & (row < _TILES) & (column >= 0) & (column < _TILES)
        tile = torch.where(covered, row * _TILES + column, 0).flatten()
        u = self.draw(self.t, (channels + 1) * _TILES**2)
        u = u.view(-1, channels + 1, _TILES**2)[:, :, tile].view(-1, channels + 1, height, width)
        sides = torch.full_like(self.t, side)
        pair = pyramids(i.view(1, -1, 1), j.view(1, 1, -1), sides, u[:, 0] > 0.5) * covered
        self.x.copy_(self.x0)
        self._reach(pair[:, None] * signs(u[:, 1:]))

    def propose(self) -> None:
        """A pair of pyramids into one window, nothing into the other, the whole to length epsilon."""
        channels, height, width = self.x0.shape[1:]
        u = self.draw(self.t + 1, 5 + channels)
        side = self.side()
        i, j = inside(u[:, 0], side, height).unsqueeze(2), inside(u[:, 1], side, width).unsqueeze(1)
        one = (within(i, side) & within(j, side))[:, None]
        two = within(inside(u[:, 2], side, height).unsqueeze(2), side)
        two = (two & within(inside(u[:, 3], side, width).unsqueeze(1), side))[:, None]
        change = self.held - self.x0
        old = change * one
        new = pyramids(i, j, side, u[:, 4] > 0.5)[:, None] * signs(u[:, 5:])[:, :, None, None]
        new = (new + old / (_TINY + _norms(old))) * one
        free = (self.epsilon.square() - ops.l2_distance(self.held, self.x0).square()).clamp_min(0)
        paid = ops.l2_distance(self.laid_out(change * (one | two)), torch.zeros_like(self.x0)).square()
        new = new / (_TINY + _norms(new)) * wide((free / channels + paid).sqrt())
        self.x.copy_(self.x0)
        self._reach(torch.where(one, new, change * ~two))

    def side(self) -> Tensor:
        """[n] side of the next window: odd, at least 3 where the image is that large."""
        side = super().side().clamp_min(3)
        shorter = min(self.x0.shape[2:])
        return (side + (side % 2 == 0)).clamp_max(shorter - (shorter % 2 == 0))

    def _reach(self, change: Tensor) -> None:
        """x <- x0 + epsilon change / |change|, in the box."""
        ops.l2_step_(self.x, self.x0, self.laid_out(change), self.epsilon, self.epsilon)


def pyramids(i: Tensor, j: Tensor, side: Tensor, turned: Tensor) -> Tensor:
    """[n, H, W] two pyramids of opposite signs, one above the other (or beside it, where turned); of L2 norm 1.

    i [n or 1, H, 1] and j [n or 1, 1, W] are places in the window of `side` [n], outside of which all is 0;
    turned is [n] or [n, H, W]. A
    pyramid is 1 / 1^2 + ... + 1 / m^2 high at its top, and a term lower with each ring (eta of the paper's
    section 4.3, as in the authors' code).
    """
    side, turned = side.view(-1, 1, 1), turned.view(-1, 1, 1) if turned.dim() == 1 else turned
    seen = (i >= 0) & (i < side) & (j >= 0) & (j < side)
    i, j = torch.where(turned, j, i), torch.where(turned, i, j)
    half = side // 2
    upper = i < half
    lines = torch.where(upper, half, side - half)
    ring = torch.maximum((torch.where(upper, i, i - half) - lines // 2).abs(), (j - half).abs())
    terms, upper_norm, lower_norm = (table.to(i.device) for table in _tables(max(seen.shape[1:])))
    height = terms[half + 1] - terms[ring.clamp_max(len(terms) - 1)]
    height = torch.where(upper, height / upper_norm[side], -height / lower_norm[side])
    return height * seen


@functools.lru_cache(maxsize=16)
def _tables(longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of 1 / k^2, k = 1 to the index; by side, what makes the upper and the lower pyramid's norm 1 / sqrt(2)."""
    terms = torch.cat([torch.zeros(1), torch.arange(1, longest + 2).double().square().reciprocal().cumsum(0)])
    norms = torch.ones(2, longest + 1, dtype=torch.float64)
    for side in range(1, longest + 1):
        half = side // 2
        for k, lines in enumerate((half, side - half)):
            i, j = torch.arange(lines), torch.arange(side)
            ring = torch.maximum((i - lines // 2).abs()[:, None], (j - half).abs())
            square = (terms[half + 1] - terms[ring]).square().sum()
            norms[k, side] = (square * (2 if half else 1)).sqrt() if lines else 1.0
    return terms.float(), norms[0].float(), norms[1].float()


def _tiling(length: int, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """[length] each line's place in its tile, and the tile; _TILES of them lie in the middle."""
    at = torch.arange(length, device=like.device) - (length - _TILES * side) // 2
    tile = torch.div(at, side, rounding_mode="floor")
    return at - tile * side, tile


def _norms(images: Tensor) -> Tensor:
    """[n, C, 1, 1] L2 of each channel, summed in an order of its own."""
    n, channels, height, width = images.shape
    planes = images.contiguous().view(n * channels, height, width)
    return ops.l2_distance(planes, torch.zeros_like(planes)).view(n, channels, 1, 1)
