"""JPEG (ITU-T T.81) with straight-through rounding: coding and decoding, with a gradient.

As libjpeg codes by default: chroma halved both ways, the tables of annex K scaled by quality; the upsampling
is its triangle filter. Differentiable JPEG: Shin and Song 2017; here the rounding's gradient is 1.
"""

import math

import torch
from torch import Tensor

# ITU-T T.81, tables K.1 and K.2, line by line.
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)
_COS = [
    [math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * k * (2 * i + 1) / 16) for i in range(8)]
    for k in range(8)
]
# [64, 64] from the pixels of a block to its coefficients, both line by line; its transpose leads back.
_DCT = torch.tensor([[a * b for a in _COS[v] for b in _COS[u]] for v in range(8) for u in range(8)]).mT
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF
_TO_RGB = ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Code and decode each picture at its quality [n], int64 in 1..100; the answer is on the 8-bit grid.

    Three channels are RGB; of any other number each is coded as grey.
    """
    x = _round(images * 255)
    if images.shape[1] != 3:
        return _round(_coded(x - 128, _table(_LUMA, quality)) + 128).clamp(0, 255) / 255
    height, width = images.shape[2:]
    luma, *chroma = _mixed(_padded(x, 2, 16).unbind(1), _TO_YCC)
    luma = _coded(_round(luma)[:, None] - 128, _table(_LUMA, quality))[:, 0] + 128
    halved = torch.stack([_halved(_round(c)) for c in chroma], 1)
    halved = _clipped(_coded(halved, _table(_CHROMA, quality)) + 128) - 128
    red, green, blue = _mixed((_clipped(luma), *(_doubled(c) for c in halved.unbind(1))), _TO_RGB)
    return _clipped(torch.stack([red, green, blue], 1)[:, :, :height, :width]) / 255


def _round(x: Tensor) -> Tensor:
    """Round; the gradient is 1."""
    return x.round().detach() + (x - x.detach())


def _clipped(x: Tensor) -> Tensor:
    return _round(x).clamp(0, 255)


def _table(base: tuple[int, ...], quality: Tensor) -> Tensor:
    """[n, 1, 64] steps of the coefficients, scaled by quality as libjpeg does."""
    quality = quality.view(-1, 1, 1)
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = torch.tensor(base, device=quality.device)
    return ((steps * percent + 50) // 100).clamp(1, 255)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise planes [n, P, H, W], centred on 0, in blocks of eight by eight."""
    n, p, height, width = planes.shape
    x = _padded(planes, 8, 8)
    lines, columns = x.shape[2] // 8, x.shape[3] // 8
    blocks = x.reshape(n, p, lines, 8, columns, 8).transpose(3, 4).reshape(n, -1, 64)
    dct = _DCT.to(x).expand(n, 64, 64)
    steps = table.to(x.dtype)
    blocks = _round(blocks.bmm(dct) / steps) * steps
    blocks = blocks.bmm(dct.mT).view(n, p, lines, columns, 8, 8)
    return blocks.transpose(3, 4).reshape(x.shape)[:, :, :height, :width]


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last line and column until the sides are multiples of these."""
    for axis, multiple in ((2, height), (3, width)):
        more = -x.shape[axis] % multiple
        last = x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([x, *[last] * more], axis)
    return x


def _mixed(planes: tuple[Tensor, ...], matrix: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    """Mix colour planes [n, H, W], term after term."""
    a, b, c = planes
    return [p * a + q * b + r * c for p, q, r in matrix]


def _halved(plane: Tensor) -> Tensor:
    """Mean of two by two; halves are rounded down and up in turn."""
    even, odd = plane[:, ::2], plane[:, 1::2]
    mean = (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2]) / 4
    up = torch.arange(mean.shape[-1], device=mean.device) % 2
    return _round(mean + (0.25 * up - 0.125))


def _doubled(plane: Tensor) -> Tensor:
    """Twice as large: three quarters of the near pixel, a quarter of the next."""
    for axis in (1, 2):
        n = plane.shape[axis]
        before = torch.cat([plane.narrow(axis, 0, 1), plane.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([plane.narrow(axis, 1, n - 1), plane.narrow(axis, n - 1, 1)], axis)
        pair = torch.stack([0.75 * plane + 0.25 * before, 0.75 * plane + 0.25 * after], axis + 1)
        plane = pair.flatten(axis, axis + 1)
    return plane
