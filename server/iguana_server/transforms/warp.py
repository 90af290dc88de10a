"""Resampling: every pixel of the answer is looked up in the picture."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [1, 1, W] and y [1, H, 1]: the places of the pixels' middles, the first at 0."""
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=images.dtype, device=images.device)
    y = torch.arange(height, dtype=images.dtype, device=images.device)
    return x.view(1, 1, -1), y.view(1, -1, 1)


def warp(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Look each pixel up at column x and line y, both [n, H, W], in pixels; between pixels bilinear, outside black."""
    height, width = images.shape[2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
