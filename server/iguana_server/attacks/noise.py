"""Random noise: what every attack must beat, and where random starts come from.

A draw is a function of (seed, sample, restart, draw number) and of nothing else: Philox,
Salmon et al. 2011.
"""

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param


def uniform(table: Attack) -> Tensor:
    """[n, C, H, W] uniform in [-1, 1), of the table's seeds and of the moves made."""
    u = ops.philox_uniform(table.seed, table.sample, table.restart, table.t, table.x0[0].numel())
    return _like(u.mul_(2).sub_(1), table.x0)


def normal(table: Attack) -> Tensor:
    """[n, C, H, W] standard normal, of the table's seeds and of the moves made."""
    return _like(
        ops.philox_normal(table.seed, table.sample, table.restart, table.t, table.x0[0].numel()), table.x0
    )


def draws(table: Attack, k: int) -> Tensor:
    """[n, k] uniform in [0, 1), of the table's seeds and of the moves made."""
    return ops.philox_uniform(table.seed, table.sample, table.restart, table.t, k)


def draws_and_normal(table: Attack, k: int) -> tuple[Tensor, Tensor]:
    """[n, k] uniform in [0, 1), and [n, C, H, W] standard normal of other words of the same draw; k a multiple of 4."""
    counters = table.seed, table.sample, table.restart, table.t
    numbers = ops.philox_normal(*counters, k + table.x0[0].numel())[:, k:]
    return draws(table, k), _like(numbers, table.x0)


def _like(flat: Tensor, images: Tensor) -> Tensor:
    """Lay a flat draw, in C order of [C, H, W], out as the images are."""
    return torch.empty_like(images).copy_(flat.reshape(images.shape))


class Noise(Attack):
    """Independent uniform draws from the Linf ball; the best is kept."""

    name = "noise"
    paper = "the baseline of every attack"
    gradient = False

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    steps: Tensor = param(10, low=1, high=10_000, kind="int", doc="number of draws")

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """x <- x0 + epsilon U(-1, 1)."""
        self.x.copy_(self.x0)
        draw = uniform(self).mul_(self.epsilon.view(-1, 1, 1, 1))
        self.x.add_(draw).clamp_(0, 1)
