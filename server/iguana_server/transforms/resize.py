"""Resizing and padding: the input diversity of Xie et al. 2019, arXiv:1803.06978."""

import torch
from torch import Tensor


def resize_pad(images: Tensor, height: Tensor, width: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Shrink each picture to [n] height x width, bilinear, and lay it on black at line `top` and column `left`.

    All are int64, in pixels; the shrunk picture, of at least one pixel, lies within the old one's frame. As
    torch.nn.functional.interpolate(align_corners=False), written as two matrices: linear, and so is its gradient.
    """
    lines = _matrix(images.shape[2], height, top).to(images.dtype)
    columns = _matrix(images.shape[3], width, left).to(images.dtype)
    return lines[:, None] @ images @ columns[:, None].mT


def _matrix(side: int, size: Tensor, start: Tensor) -> Tensor:
    """[n, side, side] what pixel o of the answer takes of pixel i of the picture, along one axis."""
    size, start = size.view(-1, 1, 1), start.view(-1, 1, 1)
    i = torch.arange(side, device=size.device)
    o = i.view(1, -1, 1) - start
    place = ((o + 0.5) * (side / size) - 0.5).clamp_min(0)
    low = place.floor()
    part = place - low
    high = (low + 1).clamp_max(side - 1)
    weights = (1 - part) * (i == low) + part * (i == high)
    return weights * ((o >= 0) & (o < size))
