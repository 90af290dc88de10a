"""Local intrinsic dimensionality of a picture's features among those of clean pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from iguana_server.detectors.base import Clean, Detector, Evidence
from iguana_server.models.base import Spec

NEIGHBOURS = 20
REFERENCES = 1000  # clean pictures that are kept
_SEED = 0
_MOST = 1e6  # dimensions: neighbours that are all equally far


class Lid(Detector):
    """In how many directions clean features lie around the picture's: more around forged ones."""

    name = "lid"
    paper = "Ma et al. 2018, arXiv:1801.02613; the last layer alone"
    needs_features: ClassVar[bool] = True

    def __init__(self, spec: Spec, state: Mapping[str, Tensor]) -> None:
        """`references` [m, F]: features of clean pictures, m above NEIGHBOURS."""
        super().__init__(spec, state)
        self._references = state["references"].float()
        if self._references.dim() != 2 or len(self._references) <= NEIGHBOURS:
            self.refuse(f"references [m, F], m above {NEIGHBOURS}", str(list(self._references.shape)))

    @classmethod
    def fitted(cls) -> tuple[str, ...]:
        """Clean features."""
        return ("references",)

    @classmethod
    def fit(cls, clean: Clean) -> dict[str, Tensor]:
        """Keep the features of some clean pictures, drawn at random."""
        drawn = torch.randperm(len(clean.features), generator=torch.Generator().manual_seed(_SEED))[
            :REFERENCES
        ]
        return {"references": clean.features[drawn].half()}

    def score(self, evidence: Evidence) -> Tensor:
        """The maximum-likelihood estimate of the dimension."""
        return torch.cat([self._dimension(row) for row in torch.split(evidence.features, 1)])

    def _dimension(self, row: Tensor) -> Tensor:
        """[1] of features [1, F]. A gradient goes through the neighbours alone, and not through a copy of the row."""
        with torch.no_grad():
            far = (self._references - row).square_().sum(1)
            nearest = far.masked_fill(far == 0, torch.inf).topk(NEIGHBOURS, largest=False).indices
        distances = (self._references[nearest] - row).square().sum(1).sqrt()
        return dimension(distances.unsqueeze(0), NEIGHBOURS)


def dimension(distances: Tensor, k: int) -> Tensor:
    """Estimate the dimension from the k least of the distances [n, m] to others: [n] (Ma et al. 2018, eq. 4).

    Distances of 0, to the point itself, are left out.
    """
    others = distances.masked_fill(distances == 0, torch.inf)
    nearest = others.topk(k, 1, largest=False, sorted=True).values
    return 1 / (nearest[:, -1:] / nearest).log().mean(1).clamp_min(1 / _MOST)
