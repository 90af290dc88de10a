"""What a figure must be told with: two figures may be compared only where all of this is the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How the metrics of one evaluation were taken."""

    extractor: str
    extractor_sha256: str  # of its weights
    features: int
    resize: str  # "none": the pictures have the extractor's size; "clean": see resize.py
    real: str  # which pictures
    real_sha256: str
    n_real: int
    made: str
    made_sha256: str  # of the generator's weights, or of the pictures
    n_made: int
    splits: int  # of the inception score
    kid_subsets: int
    kid_size: int
    neighbours: int  # k of precision and recall
    bias: float  # of the FID, estimated; see frechet.extrapolate
    seed: int

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        return asdict(self)
