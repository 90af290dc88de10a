"""Distance of a picture's features to the nearest class of clean ones, in units of their spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from iguana_server.detectors.base import Clean, Detector, Evidence
from iguana_server.models.base import Spec

_CUT = 1e-6  # of the largest variance: directions with less are taken for constant


class Mahalanobis(Detector):
    """How far the features lie from the nearest class, where all classes have one covariance."""

    name = "mahalanobis"
    paper = "Lee et al. 2018, arXiv:1807.03888; the last layer alone, no added noise"
    needs_features: ClassVar[bool] = True

    def __init__(self, spec: Spec, state: Mapping[str, Tensor]) -> None:
        """`means` [K, F] of the classes, `whitening` [F, F]: features times it have unit covariance."""
        super().__init__(spec, state)
        self._means, self._whitening = (state[name].float() for name in ("means", "whitening"))
        if len(self._means) != len(spec.classes) or self._whitening.shape[:1] != self._means.shape[1:]:
            self.refuse(
                f"means [{len(spec.classes)}, F] and whitening [F, R]",
                f"{list(self._means.shape)} and {list(self._whitening.shape)}",
            )
        self._centres = self._means @ self._whitening

    @classmethod
    def fitted(cls) -> tuple[str, ...]:
        """Means and spread of clean features."""
        return ("means", "whitening")

    @classmethod
    def fit(cls, clean: Clean) -> dict[str, Tensor]:
        """Fit the class means and the covariance around them that all classes share."""
        x, labels = clean.features.double(), clean.labels
        means = torch.stack([x[labels == k].mean(0) for k in range(clean.classes)])
        return {"means": means.float(), "whitening": whitening(x - means[labels]).half()}

    def score(self, evidence: Evidence) -> Tensor:
        """The squared distance to the nearest class."""
        white = torch.stack([row @ self._whitening for row in evidence.features])
        return (white[:, None] - self._centres).square().sum(2).amin(1)


def whitening(residuals: Tensor) -> Tensor:
    """W [F, R] such that |rW|^2 is the Mahalanobis length of r under the covariance of residuals [n, F] of mean 0.

    R is its rank: what does not vary does not count.
    """
    variance, axes = torch.linalg.eigh(residuals.T @ residuals / len(residuals))
    kept = variance > _CUT * variance[-1]
    return torch.div(axes[:, kept], variance[kept].sqrt())
