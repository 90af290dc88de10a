"""Brightness: more or less light."""

from torch import Tensor


def brightness(images: Tensor, added: Tensor) -> Tensor:
    """Add [n] to every pixel, in units of a [0, 1] pixel. Not clipped."""
    return images + added.view(-1, 1, 1, 1)
