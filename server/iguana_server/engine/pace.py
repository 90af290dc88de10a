"""How fast a model's work leaves, as measured."""

from __future__ import annotations

from dataclasses import dataclass

_HALF_LIFE_S, _EVIDENCE_S = 10.0, 1.0  # of the turns in which the model was at work


@dataclass(slots=True)
class Pace:
    """Seconds of each cost (see Job.cost), on the clock of the wall.

    A number takes longer in a large network than in a small one, and longer while other models take their turns.
    """

    left: float = 0.0  # cost that has left, in how long; both fade
    busy_s: float = 0.0

    def note(self, cost: float, seconds: float) -> None:
        """Note a turn in which the model was at work: its length, and the cost of what left."""
        fade = 0.5 ** (seconds / _HALF_LIFE_S)
        self.left = self.left * fade + cost
        self.busy_s = self.busy_s * fade + seconds

    def seconds(self, cost: float) -> float:
        """Return how long work of this cost takes, 0 without enough evidence."""
        if self.busy_s < _EVIDENCE_S or not self.left:
            return 0.0
        return cost * self.busy_s / self.left
