"""When a call is sent again, and how long it may take.

gRPC itself repeats UNAVAILABLE and CANCELLED (see `channel`); it cannot read google.rpc.RetryInfo, so a full
queue (RESOURCE_EXHAUSTED) is waited for here, up to the call's deadline. Calls are idempotent: equal requests
give equal bytes.
"""

from __future__ import annotations

import random
import time

import grpc

from iguana.errors import IguanaError, Overloaded

RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
STEADY_S = 5.0
"""A stream that lived so long was not broken at once."""


class Deadline:
    """The end of a call, with all its retries and waits."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())


def overload_pause_s(error: IguanaError, deadline: Deadline, retries: int) -> float | None:
    """Seconds to wait before sending again after `error`; None if that is of no use or too late.

    A little longer than the server asked, at random, lest all that were refused come back at once.
    """
    if retries == 0 or not isinstance(error, Overloaded) or error.retry_after_s is None:
        return None
    pause_s = error.retry_after_s * random.uniform(1.0, 1.25) + random.uniform(0.0, 0.01)
    return pause_s if pause_s < deadline.remaining_s() else None


def reconnect_pause_s(failures: int) -> float:
    """Seconds to wait before the `failures`-th reopening of a broken stream."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
