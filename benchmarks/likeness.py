"""How like two pictures are, as papers on super-resolution measure it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

SIGMA, RADIUS = 1.5, 5  # of SSIM's window: 11 x 11
K1, K2 = 0.01, 0.03


def luma(x: Tensor) -> Tensor:
    """Return Y of ITU-R BT.601 in [16, 235] / 255, [H, W] in float64, of pixels [3, H, W] in [0, 1]."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64)
    return (torch.einsum("chw,c->hw", x.double(), weights) + 16) / 255


def psnr(a: Tensor, b: Tensor) -> float:
    """Return the peak signal-to-noise ratio, in dB, of pixels in [0, 1]."""
    return -10 * float((a - b).square().mean().log10())


def ssim(a: Tensor, b: Tensor) -> float:
    """Return the mean structural similarity (Wang et al. 2004, eq. 13) of grey pixels [H, W] in [0, 1].

    The window is Gaussian; the mean is over its positions that lie within the picture.
    """
    line = torch.exp(-torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64).square() / (2 * SIGMA**2))
    line /= line.sum()

    def local(x: Tensor) -> Tensor:
        y: Tensor = conv2d(conv2d(x[None, None], line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
        return y

    a, b = a.double(), b.double()
    c1, c2 = K1**2, K2**2
    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())
