"""How good generated clothes are, as the shipped classifier sees them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from iguana_server.models import fashion_mnist as model
from iguana_server.models.base import Model

PICTURES = 500  # a pass


def judge() -> Model:
    """Return the classifier whose features and classes are believed: fashion-mnist-cnn."""
    return model.CNN.load(torch.device("cpu"))


@torch.inference_mode()
def looks(judge: Model, passes: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the classes [n] and features [n, F] of pictures, pixels in [0, 1], that come in passes."""
    seen = [judge.look(x) for x in passes]
    logits, features = (torch.cat(column) for column in zip(*seen, strict=True))
    return logits.argmax(1), features


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance of two normals fitted to features [n, F], [m, F] (Heusel et al. 2017).

    arXiv:1706.08500, eq. 6; in float64, the root of the product by two symmetric ones.
    """
    (mean_a, cov_a), (mean_b, cov_b) = (_normal(x.double()) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return float(distance)


def _normal(x: Tensor) -> tuple[Tensor, Tensor]:
    centred = x - x.mean(0)
    return x.mean(0), centred.T @ centred / (len(x) - 1)
