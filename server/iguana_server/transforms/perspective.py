"""Perspective: the paper is not parallel to the camera."""

import torch
from torch import Tensor

from iguana_server.transforms.warp import pixels, warp


def perspective(images: Tensor, corners: Tensor) -> Tensor:
    """Show the quadrilateral of the picture whose corners are moved by so much; outside is black.

    Args:
        images: [n, C, H, W].
        corners: [n, 4, 2] moves right and down, as shares of width and height, each in (-0.25, 0.25), of the
            corners top left, top right, bottom right, bottom left.

    The projective map of the unit square onto a quadrilateral is Heckbert's (1989, Fundamentals of Texture
    Mapping and Image Warping, section 2.2.3).

    """
    height, width = images.shape[2:]
    unit = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], device=images.device)
    x0, x1, x2, x3, y0, y1, y2, y3 = (unit + corners).mT.reshape(-1, 8, 1, 1).unbind(1)
    ax, bx, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    ay, by, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = ax * by - bx * ay
    g, h = (sx * by - bx * sy) / area, (ax * sy - sx * ay) / area
    u, v = pixels(images)
    u, v = (u + 0.5) / width, (v + 0.5) / height
    w = g * u + h * v + 1
    x = ((x1 - x0 + g * x1) * u + (x3 - x0 + h * x3) * v + x0) / w
    y = ((y1 - y0 + g * y1) * u + (y3 - y0 + h * y3) * v + y0) / w
    return warp(images, x * width - 0.5, y * height - 0.5)
