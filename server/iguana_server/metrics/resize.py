"""The resize before an extractor, without aliasing: Parmar et al. 2022, arXiv:2104.11222 ("clean")."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def clean(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring pixels in [0, 1], float32 [n, C, H, W], to height and width `size`: bicubic, smoothed first where smaller.

    Pillow's filter on float pixels, as clean-fid has it: not rounded to 8 bits, what overshoots cut off. Of the same
    size, pixels stay as they are.
    """
    if x.shape[2:] == size:
        return x
    y = functional.interpolate(x.double(), size=size, mode="bicubic", antialias=True, align_corners=False)
    return y.float().clamp(0, 1)
