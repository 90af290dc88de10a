"""Virtual batch norm: Salimans et al. 2016, arXiv:1606.03498, 3.5.

Each row is normalised by the statistics of a reference batch, fixed at the start, and itself; so what comes out
of a row depends on the reference and on that row alone, in training too.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class VirtualNorm(nn.Module):
    """Normalise [reference + n, C, H, W] without gain and bias; the reference rows come first."""

    def __init__(self, reference: int) -> None:
        super().__init__()
        self.reference = reference

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the reference by its own statistics, any other row by those of the reference and that row."""
        fixed = x[: self.reference]
        moments = torch.stack([fixed.mean((0, 2, 3)), fixed.square().mean((0, 2, 3))])  # [2, C]
        rest = x[self.reference :]
        own = torch.stack([rest.mean((2, 3)), rest.square().mean((2, 3))])  # [2, n, C]
        weight = 1 / (self.reference + 1)
        theirs = torch.lerp(moments[:, None].expand_as(own), own, weight)
        mean, square = torch.cat([moments[:, None].expand(-1, self.reference, -1), theirs], 1)
        scale = (square - mean.square() + EPSILON).rsqrt()
        y: Tensor = (x - mean[:, :, None, None]) * scale[:, :, None, None]
        return y


class Referenced(nn.Module):
    """A network with virtual batch norm, and its reference: columns of inputs that go before every pass's own."""

    def __init__(self, net: nn.Module, *columns: Tensor) -> None:
        super().__init__()
        self.net = net
        for i, column in enumerate(columns):
            self.register_buffer(f"reference{i}", column)

    def forward(self, *columns: Tensor) -> Tensor:
        """Map columns of n rows as the network does, beside the reference."""
        fixed = [cast(Tensor, getattr(self, f"reference{i}")) for i in range(len(columns))]
        both = [torch.cat(pair) for pair in zip(fixed, columns, strict=True)]
        y: Tensor = self.net(*both)
        return y[len(fixed[0]) :]
