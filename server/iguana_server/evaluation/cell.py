"""Cells: what became of one batch in one trial, as a line of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from iguana.result import AttackResult, Classification


@dataclass(frozen=True)
class Sample:
    """One picture: `index` in the data, classes and probabilities before and after, and the work it took.

    `outcome` is "held", "fooled", "already" (the clean picture is seen wrongly) or "failed".
    """

    index: int
    label: int
    outcome: str
    before: int
    before_sure: float
    after: int
    after_sure: float
    linf: float = 0.0
    l2: float = 0.0
    forward: int = 0
    backward: int = 0
    attack: str = ""  # what made the picture
    suspicions: tuple[str, ...] = ()

    @classmethod
    def clean(cls, index: int, label: int, seen: Classification) -> Self:
        """Of a picture that was only classified."""
        top = seen.top[0]
        outcome = "held" if top.index == label else "already"
        return cls(index, label, outcome, top.index, top.probability, top.index, top.probability)

    @classmethod
    def attacked(cls, index: int, label: int, result: AttackResult) -> Self:
        """Of an attack's answer."""
        before = result.before.top[0]
        after = result.after.top[0] if result.after.top else before
        return cls(
            index,
            label,
            str(result.outcome),
            before.index,
            before.probability,
            after.index,
            after.probability,
            result.norms.linf,
            result.norms.l2,
            result.forward,
            result.backward,
            result.attack,
            result.diagnosis.suspicions,
        )

    def size(self, norm: str) -> float:
        """Of the change."""
        return self.linf if norm == "linf" else self.l2


@dataclass(frozen=True)
class Cell:
    """One batch in one trial."""

    trial: str
    batch: int
    seconds: float
    samples: tuple[Sample, ...]
    pictures: dict[int, str] = field(default_factory=dict)  # PNG files of the worst, by index

    def to_json(self) -> dict[str, Any]:
        """As an object of the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Self:
        """Back from an object of the journal."""
        samples = tuple(Sample(**{**one, "suspicions": tuple(one["suspicions"])}) for one in line["samples"])
        pictures = {int(index): file for index, file in line["pictures"].items()}
        return cls(line["trial"], line["batch"], line["seconds"], samples, pictures)


def worst(samples: Sequence[Sample], norm: str, most: int) -> list[Sample]:
    """The fooled ones with the smallest changes (on a scale of percents); of those, the surest mistakes first."""
    hit = [sample for sample in samples if sample.outcome == "fooled"]
    return sorted(hit, key=lambda one: (float(f"{one.size(norm):.2g}"), -one.after_sure, one.index))[:most]
