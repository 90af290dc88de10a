"""What a job tells its caller: answers, and progress on the way."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from torch import Tensor


class Ended(enum.Enum):
    """Why an attacked row left."""

    STOP = "stop"
    STEPS = "steps"
    TIME_LIMIT = "time_limit"
    ALREADY = "already"
    NON_FINITE = "non_finite"


@dataclass(frozen=True, slots=True)
class Looked:
    """A sample that was looked at: logits [K], and features [F] where the job asks for them, else [0]."""

    sample: int
    logits: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an attacked row stands: loss now, margin and success of the best so far."""

    sample: int
    restart: int
    step: int
    steps: int
    loss: float
    margin: float
    fooled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """The answer for an attacked sample: image [C, H, W], logits [K] before and after."""

    sample: int
    restart: int
    attack: str
    ended: Ended
    fooled: bool
    image: Tensor
    before: Tensor
    after: Tensor
    margin: float
    merit: float
    loss: float
    step: int
    forward: int
    backward: int
    zero_gradients: int
    judgements: int  # candidates judged, of this try
    rises: int  # of them, those with more loss than the one before
    first_loss: float

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """What is better among the tries of a sample is greater."""
        return (self.ended is not Ended.NON_FINITE, self.fooled, self.merit, -self.restart)

    @property
    def outcome(self) -> str:
        """Return "fooled", "held", "already" or "failed"."""
        if self.ended is Ended.NON_FINITE:
            return "failed"
        if self.ended is Ended.ALREADY:
            return "already"
        return "fooled" if self.fooled else "held"


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a network made of a row: pixels uint8 [H, W, C], or of a critic its logit, a float32 scalar."""

    sample: int
    value: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Inverted:
    """The code [d] whose picture, uint8 [H, W, C], came nearest to a sample's.

    `error` is the mean square over its numbers, of pixels in [0, 1], `first_error` that of the start; `step` is the
    move after which it was found.
    """

    sample: int
    restart: int
    z: Tensor
    pixels: Tensor
    error: float
    first_error: float
    step: int
    finite: bool  # False: the network gave NaN or infinity, and nothing else here counts


Answer = Looked | Forged | Mapped | Inverted
Event = Progress | Answer
