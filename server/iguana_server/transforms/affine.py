"""Rotation, scale and shift: the camera is held askew, near or far, off the middle."""

import math

import torch
from torch import Tensor

from iguana_server.transforms.warp import pixels, warp

_TERMS = 16  # of the series: exact to 1e-12 up to half a turn


def affine(images: Tensor, angle: Tensor, scale: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Turn, magnify and shift each picture about its middle; what comes from outside is black.

    Args:
        images: [n, C, H, W].
        angle: [n] degrees, clockwise, in [-180, 180].
        scale: [n] magnification, > 0.
        right: [n] shift, as a share of the width.
        down: [n] shift, as a share of the height.

    """
    height, width = images.shape[2:]
    cos, sin = (each.to(images.dtype).view(-1, 1, 1) / scale.view(-1, 1, 1) for each in _turn(angle))
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = pixels(images)
    x = x - middle_x - right.view(-1, 1, 1) * width
    y = y - middle_y - down.view(-1, 1, 1) * height
    return warp(images, x * cos + y * sin + middle_x, y * cos - x * sin + middle_y)


def _turn(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine [n] in float64, by their series: the same bits wherever a row lies."""
    angle = degrees.double() * (math.pi / 180)
    square = angle * angle
    cos, sin = torch.ones_like(angle), torch.ones_like(angle)
    for k in range(_TERMS, 0, -1):
        cos = 1 - cos * square / ((2 * k - 1) * (2 * k))
        sin = 1 - sin * square / ((2 * k) * (2 * k + 1))
    return cos, sin * angle
