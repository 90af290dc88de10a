"""Transforms of some rows, gradients back through them, and how the answers lie in memory."""

from collections.abc import Callable

import torch
from torch import Tensor


def on_rows(images: Tensor, on: Tensor, transform: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Transform the rows where `on` [n] is true; the others are the bits that they were.

    `transform` is given these images and their rows [m], and returns images of their shape.
    """
    rows = on.nonzero()[:, 0]
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return transform(images, rows)
    return images.index_copy(0, rows, transform(images.index_select(0, rows), rows))


def pullback(transform: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """Return T'(x)^T grad, laid out as x: the gradient at T(x) becomes the one at x."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(transform(x), x, grad)
    return laid_out(found, x)


def laid_out(images: Tensor, like: Tensor) -> Tensor:
    """Return a copy of images in the memory format of others."""
    return torch.empty_like(like, requires_grad=False).copy_(images)
