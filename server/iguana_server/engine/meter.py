"""What the engine says about its work, to whoever listens: metrics and traces, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Meter(Protocol):
    """A listener. Every method is called from the engine's thread, often: it must be quick and never raise.

    `method` is the full name of the RPC, such as "iguana.v1.AttackService/Attack".
    """

    def waited(self, method: str, seconds: float) -> None:
        """Take note that a job left the queue, `seconds` after it came."""

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        """Take note of one pass of a model.

        `kind` is "gradient" (forward and backward) or "forward"; `padded` is the rows computed, `rows` those
        of them that belong to somebody; `spans` are what `current_span` gave for the requests in it.
        """

    def lane(self, model: str, attack: str, rows: int) -> None:
        """Take note of how many rows a lane holds now."""

    def queue(self, cost: int) -> None:
        """Take note of the waiting cost now, in pixels x steps."""

    def refused(self, method: str, reason: str) -> None:
        """Take note of a job that was turned away."""

    def cancelled(self, phase: str) -> None:
        """Take note of a job whose caller left, while it was "queued" or "running"."""

    def finished(self, attack: str, outcome: str) -> None:
        """Take note of what became of one sample."""

    def beat(self) -> None:
        """Take note that the loop is alive: every turn, and at least once a second when idle."""


class Silent:
    """A meter that nobody reads."""

    def waited(self, method: str, seconds: float) -> None:
        """Do nothing."""

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        """Do nothing."""

    def lane(self, model: str, attack: str, rows: int) -> None:
        """Do nothing."""

    def queue(self, cost: int) -> None:
        """Do nothing."""

    def refused(self, method: str, reason: str) -> None:
        """Do nothing."""

    def cancelled(self, phase: str) -> None:
        """Do nothing."""

    def finished(self, attack: str, outcome: str) -> None:
        """Do nothing."""

    def beat(self) -> None:
        """Do nothing."""
