"""Feature squeezing: fewer grey levels, and a median filter."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from iguana_server.detectors.base import Detector, Evidence, shift
from iguana_server.detectors.straight import rounded

BITS = 3


class Squeeze(Detector):
    """How far the answer moves when the picture loses grey levels or fine detail."""

    name = "squeeze"
    paper = "Xu et al. 2018, arXiv:1704.01155"
    looks: ClassVar[int] = 2

    def views(self, x: Tensor) -> Tensor:
        """3 bits a pixel, and the median of 3 x 3 pixels."""
        return torch.stack([reduce(x, BITS), median(x)], 1)

    def score(self, evidence: Evidence) -> Tensor:
        """The larger of the two shifts, in [0, 2]."""
        return shift(evidence).amax(1)


def reduce(x: Tensor, bits: int) -> Tensor:
    """Round pixels in [0, 1] to the nearest of 2**bits levels; moves none by more than 0.5 / (2**bits - 1)."""
    levels = 2**bits - 1
    return torch.div(rounded(x * levels), levels)


def median(x: Tensor) -> Tensor:
    """Median of each pixel's 3 x 3 neighbourhood, the border reflected: [n, C, H, W], H and W at least 2.

    With each column of three in order, it is the middle one of the largest low, the middle mid and the least high.
    """
    padded = functional.pad(x, (1, 1, 1, 1), "reflect")
    low, mid, high = _ordered(padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:])
    lows, mids, highs = ((y[..., :-2], y[..., 1:-1], y[..., 2:]) for y in (low, mid, high))
    largest = torch.maximum(torch.maximum(lows[0], lows[1]), lows[2])
    least = torch.minimum(torch.minimum(highs[0], highs[1]), highs[2])
    return _ordered(largest, _ordered(*mids)[1], least)[1]


def _ordered(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least, the middle and the largest of three."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.minimum(low, c), torch.maximum(low, torch.minimum(high, c)), torch.maximum(high, c)
