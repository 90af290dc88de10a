"""The pictures of one step, as the network is to see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from iguana_server.models.fashion_mnist import MEAN


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures, their labels, and what their random numbers are drawn from."""

    x: Tensor  # [n, 1, 28, 28] pixels in [0, 1]
    label: Tensor  # [n]
    rows: Tensor  # [n] places in the training set
    seed: int
    epoch: int

    def __len__(self) -> int:
        """Pictures."""
        return len(self.label)


def augment(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Flip each picture left to right at random and shift it by up to `shift` pixels: [n, C, H, W].

    What comes in at the edges is the data's mean grey: zero to the network.
    """
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=rng) < 0.5
    x = functional.pad(torch.where(flip, x.flip(3), x), [shift] * 4, value=MEAN)
    top, left = torch.randint(2 * shift + 1, (2, n, 1, 1), generator=rng)
    rows = top + torch.arange(height).view(-1, 1)  # [n, H, 1]
    columns = left + torch.arange(width)  # [n, 1, W]
    return x.movedim(1, 3)[torch.arange(n).view(-1, 1, 1), rows, columns].movedim(3, 1)
