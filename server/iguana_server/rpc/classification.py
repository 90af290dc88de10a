"""Classifications: logits as the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from iguana.v1 import classify_pb2, image_pb2
from iguana_server.rpc.image import from_array

_SCORE_BYTES = 24  # of a ClassScore without its name, at most


def from_logits(
    logits: torch.Tensor, classes: Sequence[str], top_k: int, *, with_logits: bool = False
) -> classify_pb2.Classification:
    """Return the top_k classes (all, if there are fewer) of finite logits [K]: best first, equals by index.

    Probabilities are the softmax in float64, rounded to float32.
    """
    line = logits.cpu().numpy()
    order = np.argsort(-line, kind="stable")[:top_k]
    weights = np.exp(line.astype(np.float64) - line[order[0]])
    probabilities = weights[order] / weights.sum()
    return classify_pb2.Classification(
        top=(
            classify_pb2.ClassScore(index=index, name=classes[index], probability=probability)
            for index, probability in zip(order.tolist(), probabilities.tolist(), strict=True)
        ),
        logits=from_array(line, image_pb2.DTYPE_FLOAT32) if with_logits else None,
    )


def largest(classes: Sequence[str], top_k: int, *, with_logits: bool = False) -> int:
    """Return the most bytes that such a Classification can take."""
    names = sorted((len(name.encode()) for name in classes), reverse=True)[:top_k]
    return 16 + sum(names) + _SCORE_BYTES * len(names) + (32 + 4 * len(classes)) * with_logits
