"""Consistency under changes that a person would not notice: JPEG, and a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from iguana_server.detectors.base import Detector, Evidence, shift
from iguana_server.detectors.jpeg import jpeg
from iguana_server.models.base import Spec

QUALITY = 50


class Transform(Detector):
    """How far the answer moves when the picture is saved as JPEG or mirrored."""

    name = "transform"
    paper = "JPEG: Dziugaite et al. 2016, arXiv:1608.00853; shift: Xu et al. 2018, arXiv:1704.01155"
    looks: ClassVar[int] = 2

    def __init__(self, spec: Spec, state: Mapping[str, Tensor]) -> None:
        """Raises ModelRefused where the pictures are neither grey nor RGB."""
        super().__init__(spec, state)
        if spec.shape[0] not in (1, 3):
            self.refuse("1 or 3 channels", str(spec.shape[0]))

    def views(self, x: Tensor) -> Tensor:
        """JPEG of quality 50, and left to right."""
        return torch.stack([jpeg(x, QUALITY), x.flip(3)], 1)

    def score(self, evidence: Evidence) -> Tensor:
        """The mean of the two shifts, in [0, 2]."""
        return shift(evidence).mean(1)
