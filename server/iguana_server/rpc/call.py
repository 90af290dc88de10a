"""The call that a servicer method is answering."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

_current: ContextVar[Call] = ContextVar("call")


@dataclass(frozen=True, slots=True)
class Call:
    """What holds for the whole call; `Call.current()` finds it, from the handler's own task."""

    method: str  # full name, such as "iguana.v1.AttackService/Attack"
    deadline: float  # time.monotonic() after which nobody waits; the server's bound where the caller set none
    span: object | None  # for the engine's Meter.step; None if the call is not traced

    @staticmethod
    def current() -> Call:
        """Return the running call. Raises LookupError outside of one."""
        return _current.get()

    def enter(self) -> None:
        """Make this the running call of the task."""
        _current.set(self)

    def remaining(self) -> float:
        """Return the seconds to the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())
