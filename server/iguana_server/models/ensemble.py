"""Several networks as one classifier: the mean of their logits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused


class Ensemble(nn.Module):
    """Networks of one kind of picture and the same classes; who classifies, attacks or detects sees one network.

    Logits are averaged (ensemble in logits, Dong et al. 2018, arXiv:1710.06081, 3.3.1), so the gradient is the
    mean of the members'. The members see the same pixels and must not write on them. Raises ModelRefused for
    fewer than two.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if len(self.members) < 2:
            raise ModelRefused(f"ensemble: want 2 members or more, got {len(self.members)}")

    def each(self, x: Tensor) -> list[Tensor]:
        """Return every member's logits, [n, K] each, for pixels [n, C, H, W] as the members take them."""
        return [member(x) for member in self.members]

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels [n, C, H, W] to the mean logits [n, K].

        The sum is taken in the members' order, so that a row's bits do not depend on how many rows there are.
        """
        first, *others = self.each(x)
        total = first
        for logits in others:
            total = total + logits
        return torch.div(total, len(self.members))
