"""A detector: how suspicious a picture is, from looks of the model at it and at views of it.

It never calls the model. Views are rows like any other: they share passes with whatever the model is shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model, Spec


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of n pictures: images [n, C, H, W] in [0, 1]; logits of them [n, K] and of their V views [n, V, K].

    features [n, F] are the model's (Model.features); [n, 0] where no detector asks for them.
    """

    images: Tensor
    logits: Tensor
    views: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True)
class Clean:
    """What is fitted to: clean pictures with features [m, F] and labels [m] int64 in [0, classes).

    Beside some of the pictures, images [k, C, H, W] in [0, 1], come others with noise added, and forged ones.
    """

    features: Tensor
    labels: Tensor
    classes: int
    images: Tensor
    noisy: Tensor
    forged: Tensor


class Detector(ABC):
    """Scores pictures one by one: higher is more suspicious. Deterministic; a row knows of no other.

    Everything is torch's, so that a gradient goes through wherever the mathematics has one.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    looks: ClassVar[int] = 0  # views of a picture
    needs_features: ClassVar[bool] = False
    needs_members: ClassVar[bool] = False  # an ensemble, whose features are its members' logits

    def __init__(self, spec: Spec, state: Mapping[str, Tensor]) -> None:
        """Take what was fitted to clean pictures: tensors by name, none where nothing is.

        Raises ModelRefused where a model of this spec cannot be watched with it.
        """
        self.spec = spec
        if set(state) != set(self.fitted()):
            self.refuse(f"the tensors {sorted(self.fitted())}", str(sorted(state)))

    @classmethod
    def check(cls, model: Model) -> str:
        """What a model would have to show and does not, in words; "" where nothing."""
        if cls.needs_members and not model.members:
            return "an ensemble"
        return "features that can be seen" if cls.needs_features and not model.features else ""

    @classmethod
    def fitted(cls) -> tuple[str, ...]:
        """The names of the tensors that are fitted."""
        return ()

    @classmethod
    def fit(cls, clean: Clean) -> dict[str, Tensor]:  # noqa: ARG003 - others need it
        """Fit to clean pictures; returns the tensors by name."""
        return {}

    def views(self, x: Tensor) -> Tensor:
        """What else the model is to look at: [n, C, H, W] in [0, 1] to [n, V, C, H, W]."""
        return x.new_empty(len(x), 0, *x.shape[1:])

    @abstractmethod
    def score(self, evidence: Evidence) -> Tensor:
        """How suspicious the pictures are: [n]."""

    def refuse(self, want: str, got: str) -> None:
        """Raise ModelRefused."""
        raise ModelRefused(f"{self.spec.name}: {self.name}: want {want}, got {got}")


def shift(evidence: Evidence) -> Tensor:
    """L1 distance of the softmax of each view to that of the picture: [n, V] in [0, 2] (Xu et al. 2018, eq. 3)."""
    return (evidence.views.softmax(2) - evidence.logits.softmax(1)[:, None]).abs().sum(2)
