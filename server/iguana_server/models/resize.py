"""Pictures at another size, differentiably."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SHARPNESS = -0.5  # `a` of Keys 1981; Pillow's


class Resize(nn.Module):
    """Bicubic, as Pillow resizes the files that Iguana is sent, but not rounded to 8 bits: [n, C, *old] to [n, C, *new].

    What overshoots [0, 1] at sharp edges is not cut off, as Pillow does: there the gradient would end.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        """Both are height and width in pixels."""
        super().__init__()
        self.lines, self.columns = (_Axis(bicubic(*sizes)) for sizes in zip(old, new, strict=True))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.columns(self.lines(x.contiguous()).mT.contiguous())
        return y.mT


class _Axis(nn.Module):
    """A sparse matrix and its transpose, for the gradient: [n, C, old, K] to [n, C, new, K].

    Sums are taken pixel by pixel in the order of the taps. In a product of matrices, and in the gradient of a
    gather on a GPU, a row's bits would depend on its place in the batch.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        for name, one in (("there", matrix), ("back", matrix.T)):
            taps = int((one != 0).sum(1).max())
            index = one.abs().topk(taps, 1).indices.sort(1).values
            weight = one.gather(1, index).T[..., None]
            self.register_buffer(f"{name}_index", index.T.contiguous(), persistent=False)
            self.register_buffer(f"{name}_weight", weight.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Sum.apply(x, self.there_index, self.there_weight, self.back_index, self.back_weight)  # type: ignore[no-untyped-call]
        return y


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *taps: Tensor) -> Tensor:
        ctx.save_for_backward(*taps)
        return _taken(x, *taps[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _taken(grads[0].contiguous(), *ctx.saved_tensors[2:]), None, None, None, None


def _taken(x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """The sum over taps t of weight[t] times the line index[t]."""
    total = x.index_select(2, index[0]).mul_(weight[0])
    for i, w in zip(index[1:], weight[1:], strict=True):
        total.add_(x.index_select(2, i).mul_(w))
    return total


def bicubic(old: int, new: int) -> Tensor:
    """[new, old] what each new pixel takes of each old one; smaller pictures are smoothed first (Keys 1981)."""
    scale = old / new
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    distance = torch.arange(old, dtype=torch.float64) + 0.5 - centre[:, None]
    d = (distance / max(scale, 1.0)).abs()
    near = ((SHARPNESS + 2) * d - (SHARPNESS + 3)) * d.square() + 1
    far = SHARPNESS * (((d - 5) * d + 8) * d - 4)
    weights = torch.where(d < 1, near, torch.where(d < 2, far, 0))
    return torch.div(weights, weights.sum(1, keepdim=True)).float()
