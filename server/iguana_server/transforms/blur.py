"""Gaussian blur: the camera is out of focus."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def gaussian(reach: int, deviation: float) -> Tensor:
    """[2 reach + 1] weights of a Gaussian with this standard deviation in pixels, > 0; their sum is 1."""
    weights = [math.exp(-0.5 * (k / deviation) ** 2) for k in range(-reach, reach + 1)]
    total = math.fsum(weights)
    return torch.tensor([w / total for w in weights])


def convolve(images: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Convolve each picture, along lines and columns, with its own kernel (an odd number of weights); outside is black.

    Each row is convolved by itself, so that its neighbours' number and kernels are nothing to it.
    """
    return torch.cat(
        [_one(image[None], kernel.to(image)) for image, kernel in zip(images, kernels, strict=True)]
    )


def _one(image: Tensor, kernel: Tensor) -> Tensor:
    channels, reach = image.shape[1], len(kernel) // 2
    down = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    image = conv2d(image, down, padding=(reach, 0), groups=channels)
    return conv2d(image, down.mT, padding=(0, reach), groups=channels)


def blur(images: Tensor, deviation: Tensor) -> Tensor:
    """Blur with standard deviations [n] >= 0, in pixels; the kernel reaches three of them."""
    return convolve(images, [gaussian(math.ceil(3 * s), s or 1.0) for s in deviation.tolist()])
