"""Noise: a sensor's."""

from torch import Tensor


def noise(images: Tensor, deviation: Tensor, normal: Tensor) -> Tensor:
    """Add standard normal numbers [n, C, H, W] times [n], in units of a [0, 1] pixel. Not clipped."""
    return images + deviation.view(-1, 1, 1, 1) * normal
