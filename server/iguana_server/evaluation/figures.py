"""All metrics of one set of pictures beside another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from iguana_server.evaluation.extractor import Seen
from iguana_server.metrics import frechet, kernel
from iguana_server.metrics.frechet import Extrapolation, Moments
from iguana_server.metrics.inception_score import inception_score
from iguana_server.metrics.manifold import K, precision_recall


@dataclass(frozen=True, kw_only=True)
class Figures:
    """FID and KID and their like of one extractor; the deviations are those over splits and subsets."""

    fid: float
    fid_infinity: float  # see frechet.extrapolate
    kid: float
    kid_deviation: float
    inception_score: float
    inception_score_deviation: float
    precision: float
    recall: float
    accuracy: float | None  # share of pictures that the extractor sees as the class they were made as
    per_class: Mapping[str, float] | None

    def to_json(self) -> dict[str, object]:
        """As an object."""
        return asdict(self)


def subset(made: Seen, real: Seen) -> int:
    """The rows of KID's subsets: the paper's, or as many as there are."""
    return min(kernel.SIZE, len(made), len(real))


def measure(
    made: Seen, real: Seen, classes: tuple[str, ...], *, splits: int, seed: int
) -> tuple[Figures, Extrapolation]:
    """Measure a set against the real one; `classes` are the names of the logits, none where they say nothing.

    Raises ValueError where there are too few pictures.
    """
    sizes = frechet.even_sizes(len(made))
    found = frechet.extrapolate(Moments.of(real.features), made.features, sizes=sizes, seed=seed)
    kid = kernel.kernel_distance(
        made.features, real.features, subsets=kernel.SUBSETS, size=subset(made, real), seed=seed
    )
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(seed))
    score = inception_score(made.logits[order], splits=splits)
    precision, recall = precision_recall(made.features, real.features, k=K)
    right = _right(made, classes)
    labels = made.pictures.labels
    figures = Figures(
        fid=found.distances[-1],
        fid_infinity=found.infinity,
        kid=kid[0],
        kid_deviation=kid[1],
        inception_score=score[0],
        inception_score_deviation=score[1],
        precision=precision,
        recall=recall,
        accuracy=None if right is None else right.float().mean().item(),
        per_class=None
        if right is None or labels is None
        else {
            name: right[labels == i].float().mean().item()
            for i, name in enumerate(classes)
            if (labels == i).any()
        },
    )
    return figures, found


def _right(made: Seen, classes: tuple[str, ...]) -> Tensor | None:
    """Which pictures are seen as their label, [n]; none where they have none, or the logits' names are not known."""
    labels = made.pictures.labels
    return None if labels is None or not classes else made.logits.argmax(1) == labels
