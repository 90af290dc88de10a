"""What every contender is given alike."""

from __future__ import annotations

from dataclasses import dataclass

ATTACKS = ("fgsm", "pgd", "pgdl2", "mifgsm", "apgd")


@dataclass(frozen=True)
class Task:
    """One attack on all images of the victim: untargeted, cross-entropy, no random start (but for APGD).

    epsilon is the radius in units of a [0, 1] pixel; L2 for pgdl2, else Linf.
    """

    attack: str
    epsilon: float
    steps: int
    early: bool = False  # a sample leaves at its first success; only Iguana and the limit can
    strict: bool = True  # Iguana's determinism

    @property
    def alpha(self) -> float:
        """The length of a step: a tenth of the ball; FGSM's is all of it."""
        return self.epsilon if self.attack == "fgsm" else self.epsilon / 10
