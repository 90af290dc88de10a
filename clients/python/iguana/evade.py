"""Evade: detectors that an attack is led past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evade:
    """Detectors that an attack is to pass as well as to fool the model; none named: all that the model has.

    `false_positive_rate` is as in `Client.detect`. `balance` is "joint" or "in_turn": first fool the model, then
    lose suspicion. `weight` is of suspicion in the joint loss, one for all or one a sample; None is 1.
    """

    detectors: Sequence[str] = ()
    false_positive_rate: float = 0.0
    balance: str = "joint"
    weight: float | Sequence[float] | None = None
