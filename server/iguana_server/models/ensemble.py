"""Several networks as one classifier: the mean of their logits, or of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused

Average: TypeAlias = Literal["logits", "probabilities"]


class Ensemble(nn.Module):
    """Networks of one kind of picture and the same classes; who classifies, attacks or detects sees one network.

    What is averaged (Dong et al. 2018, arXiv:1710.06081, 3.3.1): "logits", so that the gradient is the mean of the
    members', or "probabilities", whose logarithms are the logits. Their third, the mean of the members' losses, is
    no network: a loss would have to be taken of every member's logits (Model.look shows them) before the mean.

    The members see the same pixels and must not write on them. Raises ModelRefused for fewer than two.
    """

    def __init__(self, members: Iterable[nn.Module], average: Average = "logits") -> None:
        super().__init__()
        self.members, self.average = nn.ModuleList(members), average
        if len(self.members) < 2:
            raise ModelRefused(f"ensemble: want 2 members or more, got {len(self.members)}")

    def each(self, x: Tensor) -> list[Tensor]:
        """Return every member's logits, [n, K] each, for pixels [n, C, H, W] as the members take them."""
        return [member(x) for member in self.members]

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels [n, C, H, W] to the average [n, K]."""
        return self.join(self.each(x))

    def join(self, logits: Sequence[Tensor]) -> Tensor:
        """Map the members' logits, [n, K] each, to the ensemble's [n, K].

        The sum is taken in the members' order, so that a row's bits do not depend on how many rows there are.
        """
        if self.average == "probabilities":
            return torch.stack(list(logits)).log_softmax(2).logsumexp(0) - math.log(len(logits))
        total = logits[0]
        for one in logits[1:]:
            total = total + one
        return torch.div(total, len(logits))
