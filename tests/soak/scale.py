"""How much is sent. The suite sends a share, the same every time; SOAK=SEED sends all, drawn from that seed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings


@dataclass(frozen=True)
class Scale:
    """Counts of one run."""

    tagged: int  # calls whose answers are recognised
    structured: int  # messages made from the descriptors, of each rpc
    raw: int  # bodies made of bytes, of each rpc
    storm: int  # streams opened and cancelled
    cancels: int  # calls cancelled and timed, of each kind
    bombs: int  # times that each bomb is sent


SOAK = os.environ.get("SOAK")
SEED = int(SOAK) if SOAK else 0
SCALE = Scale(10_000, 5_000, 5_000, 10_000, 50, 10) if SOAK else Scale(300, 100, 100, 1_000, 5, 2)

# What is found is told by the assertion with the message itself: no database, no search for smaller ones.
TOGETHER = 5  # requests of an example, sent at once
EXAMPLES = settings(
    max_examples=SCALE.structured // TOGETHER,
    derandomize=not SOAK,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
