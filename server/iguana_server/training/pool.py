"""A history of generated pictures, Shrivastava et al. 2017, arXiv:1612.07828, section 2.3."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """The last `size` pictures or so; a discriminator is shown some of them in place of new ones.

    A buffer, so that a checkpoint has it. Of several processes each has a pool of its own, and a run taken up
    goes on with the first one's.
    """

    pictures: Tensor  # [size, C, H, W]
    held: Tensor  # [] int64, how many there are

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, *shape))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    def exchange(self, new: Tensor, rng: torch.Generator) -> Tensor:
        """Return as many pictures as are given, [n, C, H, W].

        While there is room a new one is kept and returned. Then each is returned itself or, as probably, an old
        one whose place it takes.
        """
        out = new.clone()
        size = len(self.pictures)
        for i, picture in enumerate(new):
            held = int(self.held)
            if held < size:
                self.pictures[held] = picture
                self.held += 1
            elif size and torch.rand((), generator=rng) < 0.5:
                place = int(torch.randint(size, (), generator=rng))
                out[i] = self.pictures[place]
                self.pictures[place] = picture
        return out
