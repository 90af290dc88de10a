"""A row: a sample in flight."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iguana_server.engine.job import Job


GRADIENT_LOOKS = 3  # a forward and a backward cost as much as three forwards


class Stage(enum.Enum):
    """What a row needs next."""

    OPEN = "open"  # a look at the clean image, before a start elsewhere
    MOVE = "move"  # a look and a move
    LAST = "last"  # a look at the iterate, and no more moves
    LOOK = "look"  # a look and nothing else: classification
    OVER = "over"  # nothing


@dataclass(eq=False, slots=True)
class Row:
    """A sample (or one restart of it) in flight."""

    job: Job
    sample: int
    restart: int = 0
    stage: Stage = Stage.LOOK
    steps: int = 0
    moves: int = 0
    forward: int = 0
    backward: int = 0
    gradient: bool = False  # its moves need one
    place: int = -1  # in its lane
