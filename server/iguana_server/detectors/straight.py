"""Steps that a gradient passes straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_: Any, *grad: Tensor) -> Tensor:
        return grad[0]


def rounded(x: Tensor) -> Tensor:
    """Round to whole numbers, with the gradient of x itself.

    Rounding has a gradient of zero, behind which a detector would only seem safe: backward pass differentiable
    approximation (Athalye et al. 2018, arXiv:1802.00420, section 4.1).
    """
    made: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return made
