"""What a call can end in, as one tree.

    IguanaError
        InvalidArgument         the request is wrong; `violations` name the fields: mend it
            UnknownParameter    a keyword that the attack does not have (refused before sending)
        NotFound                no such model; the text suggests near names
        Overloaded              the server's queue is full; `retry_after_s` says when to come back
        DeadlineExceeded        the call's time-out passed before the answer was ready
        Cancelled               the call was cancelled
        Unavailable             not reachable, starting or draining; another replica may answer
        InternalError           a defect of the server; the text holds the id of its log line

A status outside this table (a proxy's UNAUTHENTICATED, say) is a plain `IguanaError` with that `code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from iguana.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REASON_PREFIX = "ERROR_REASON_"
_AIO_SEND_FAILED = "Internal error from Core"
"""What grpc.aio says, with INTERNAL, if a message could not be sent on a stream whose end it has not read yet."""


class IguanaError(Exception):
    """The root: anything that a call to Iguana ends in but an answer.

    `code` is the gRPC status, `reason` the server's machine-readable cause in lower case ("queue_full", "" if
    none came), `violations` are (field, description) pairs, `retry_after_s` is in seconds, or None.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        violations: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidArgument(IguanaError, ValueError):
    """A field of the request is out of its range; refused here or by the server."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class UnknownParameter(InvalidArgument, TypeError):
    """A keyword that the attack does not have; the text suggests near names."""


class NotFound(IguanaError, LookupError):
    """Nothing of this name on the server."""

    code = grpc.StatusCode.NOT_FOUND


class Overloaded(IguanaError):
    """The server's queue is full, and still was when the retries ended."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(IguanaError, TimeoutError):
    """The time-out passed before the answer was ready."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(IguanaError):
    """The call was cancelled, by the server or by closing the client."""

    code = grpc.StatusCode.CANCELLED


class Unavailable(IguanaError, ConnectionError):
    """The server is not reachable, or is starting or draining."""

    code = grpc.StatusCode.UNAVAILABLE


class InternalError(IguanaError):
    """A defect of the server, or an answer that this client cannot read."""

    code = grpc.StatusCode.INTERNAL


_CLASS_OF_CODE: dict[grpc.StatusCode, type[IguanaError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        Overloaded,
        DeadlineExceeded,
        Cancelled,
        Unavailable,
        InternalError,
    )
}
_CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def invalid(field: str, want: str, got: object) -> InvalidArgument:
    """The refusal of one field before anything is sent."""
    description = f"want {want}, got {got}"
    return InvalidArgument(f"{field}: {description}", violations=[(field, description)])


def from_rpc_error(error: grpc.RpcError) -> IguanaError:
    """The typed error of a failed call, sync or async, with google.rpc details; `error` is its cause."""
    call = cast(grpc.Call, error)  # what grpc and grpc.aio raise is also the call: code, details, metadata
    reason, violations, retry_after_s = "", [], None
    for detail in _details(call):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason.removeprefix(_REASON_PREFIX).lower()
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    code, text = call.code(), call.details() or ""
    if text == _AIO_SEND_FAILED:
        code, text = grpc.StatusCode.UNAVAILABLE, "the stream broke while a message was being sent"
    typed = _typed(code, text, reason, violations, retry_after_s)
    typed.__cause__ = error
    return typed


def from_failure(failure: error_pb2.Failure) -> IguanaError:
    """The typed error of one item of a stream that goes on."""
    return _typed(
        _CODE_OF_NUMBER.get(failure.code, grpc.StatusCode.UNKNOWN),
        failure.message,
        error_pb2.ErrorReason.Name(failure.reason).removeprefix(_REASON_PREFIX).lower()
        if failure.reason
        else "",
        [(v.field, v.description) for v in failure.violations],
        failure.retry_after_s or None,
    )


def _typed(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    violations: Sequence[tuple[str, str]],
    retry_after_s: float | None,
) -> IguanaError:
    cls = _CLASS_OF_CODE.get(code, IguanaError)
    text = message or code.name
    return cls(text, code=code, reason=reason, violations=violations, retry_after_s=retry_after_s)


def _details(call: grpc.Call) -> Sequence[Any]:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                details: Sequence[Any] = status_pb2.Status.FromString(value).details
                return details
            except DecodeError:
                return ()  # a proxy's bytes: the code and the text still say what happened
    return ()
