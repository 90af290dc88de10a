"""JPEG there and back (ITU-T T.81, baseline), without the lossless part: it changes no pixel."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from iguana_server.detectors.straight import rounded

# T.81, annex K: brightness and colour, for quality 50.
_BRIGHTNESS = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_COLOUR = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Return [n, C, H, W] in [0, 1] (C is 1 or 3) as it comes out of a JPEG file of this quality, 1 to 100.

    Colour has half the resolution (4:2:0). The result is on the 8-bit grid; gradients pass its roundings
    straight through.
    """
    channels, height, width = x.shape[1:]
    step = 16 if channels == 3 else 8
    pad = (0, -width % step, 0, -height % step)
    y = functional.pad(rounded(x * 255), pad, "replicate")
    if channels == 1:
        y = _blocks(y - 128, _table(_BRIGHTNESS, quality)) + 128
    else:
        to_ycc, to_rgb = (torch.tensor(m).to(x) for m in (_TO_YCC, _TO_RGB))
        y = rounded(_mix(y, to_ycc))
        brightness, colour = y[:, :1] - 128, rounded(functional.avg_pool2d(y[:, 1:], 2))
        brightness = _blocks(brightness, _table(_BRIGHTNESS, quality)) + 128
        colour = _blocks(colour, _table(_COLOUR, quality))
        colour = functional.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
        y = _mix(torch.cat([brightness, rounded(colour)], 1), to_rgb)
    return rounded(y[..., :height, :width]).clamp(0, 255) / 255


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Linear map of the channels; written out, so that a row's sums do not depend on the others."""
    red, green, blue = x.unbind(1)
    return torch.stack([a * red + b * green + c * blue for a, b, c in matrix], 1)


def _blocks(x: Tensor, table: Tensor) -> Tensor:
    """Quantise the cosine transforms of 8 x 8 blocks of pixels in [-128, 127]."""
    n, channels, height, width = x.shape
    cosine, table = _cosine().to(x), table.to(x)
    blocks = x.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = rounded((cosine @ blocks @ cosine.T) / table) * table
    back = (cosine.T @ waves @ cosine).transpose(3, 4).reshape(x.shape)
    return rounded(back).clamp(-128, 127)


@functools.cache
def _cosine() -> Tensor:
    """The orthonormal DCT-II of 8 points: [8, 8]."""
    k, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi * k * (2 * i + 1) / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _table(base: tuple[int, ...], quality: int) -> Tensor:
    """The quantiser's steps at a quality, by the scale that libjpeg made common: [8, 8]."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([min(max((step * scale + 50) // 100, 1), 255) for step in base]).view(8, 8)
