"""How good generated clothes are, as the shipped classifier sees them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from iguana_server.metrics.frechet import Moments, distance
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
    """Return the Frechet distance of two sets of features, [n, F] and [m, F]."""
    return distance(Moments.of(a), Moments.of(b))
