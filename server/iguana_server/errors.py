"""What can go wrong, as one tree. The text of a `ServeError` is safe to send to a caller.

    ServeError
        InvalidArgument         the request is wrong; says every field and what it wants
        NotFound                no such model, attack, ...; says the close matches
        FailedPrecondition      the server's state forbids it
            ModelRefused        a model that the registration probe or its loader refused
        Overloaded              the queue is full; says when to come back
        DeadlineExceeded        the caller's deadline passed
        Unavailable             starting, draining, or the device is lost
        InternalError           a fault of the server

`code` is the name of the gRPC status; no grpc here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Self


class ServeError(Exception):
    """The root: anything the server tells a caller."""

    code: ClassVar[str] = "INTERNAL"


class InvalidArgument(ServeError):
    """A field of the request is out of its range; `violations` are (field, description) pairs."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        self._set([(field, description)])

    def _set(self, violations: Iterable[tuple[str, str]]) -> None:
        self.violations = tuple(violations)
        self.args = ("; ".join(f"{field}: {description}" for field, description in self.violations),)

    @classmethod
    def many(cls, violations: Iterable[tuple[str, str]]) -> Self:
        """All faults of a request at once."""
        error = cls.__new__(cls)
        error._set(violations)
        return error


class NotFound(ServeError):
    """Nothing of this name; `suggestions` are the names that come close, best first."""

    code = "NOT_FOUND"

    def __init__(self, what: str, name: str, suggestions: Sequence[str] = ()) -> None:
        self.what, self.name, self.suggestions = what, name, tuple(suggestions)
        hint = f" (close: {', '.join(suggestions)})" if suggestions else ""
        super().__init__(f"{what}: no {name!r}{hint}")


class FailedPrecondition(ServeError):
    """The request is right, but the server's state forbids it."""

    code = "FAILED_PRECONDITION"


class ModelRefused(FailedPrecondition):
    """A model that cannot be served as declared; the text says what failed and by how much."""


class Overloaded(ServeError):
    """The queue is full; `retry_after_s` is when another try is worth it, in seconds."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, text: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(text)


class DeadlineExceeded(ServeError):
    """The caller's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(ServeError):
    """Not serving now: starting, draining, or the device is lost. Another replica may answer."""

    code = "UNAVAILABLE"


class InternalError(ServeError):
    """A fault of the server; its details stay in the server's log."""
