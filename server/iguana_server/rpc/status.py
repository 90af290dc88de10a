"""From errors to statuses: the one map, for calls and for items of a stream.

A refusal carries google.rpc.ErrorInfo (domain "iguana.v1", reason the full name of an ErrorReason), and where
it helps BadRequest or RetryInfo. Anything that is not a refusal is a defect: it is logged once, with an id,
and the caller gets the id and nothing else.
"""

from __future__ import annotations

import logging
import secrets
from typing import NoReturn, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from iguana.v1 import error_pb2
from iguana_server import errors
from iguana_server.rpc.context import Context

Reason: TypeAlias = error_pb2.ErrorReason.ValueType

DOMAIN = "iguana.v1"
LONGEST = 256  # bytes of a text; a status must fit the 8 KiB of metadata that a client takes
MOST_VIOLATIONS = 6

_log = logging.getLogger(__name__)


class MalformedBody(errors.InvalidArgument):
    """The bytes of a request are not the method's message."""


REASONS: dict[type[errors.ServeError], Reason] = {
    MalformedBody: error_pb2.ERROR_REASON_MALFORMED_BODY,
    errors.InvalidArgument: error_pb2.ERROR_REASON_INVALID_FIELD,
    errors.NotFound: error_pb2.ERROR_REASON_UNKNOWN_MODEL,
    errors.Overloaded: error_pb2.ERROR_REASON_QUEUE_FULL,
    errors.DeadlineExceeded: error_pb2.ERROR_REASON_DEADLINE,
    errors.Unavailable: error_pb2.ERROR_REASON_STOPPING,
    errors.InternalError: error_pb2.ERROR_REASON_INTERNAL,
}


def refusal(error: BaseException) -> errors.ServeError:
    """Return what a caller may know of `error`; a defect is logged and becomes an InternalError with an id.

    asyncio.CancelledError, and whatever else is no Exception, is raised again.
    """
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, errors.ServeError) and _reason(error) != error_pb2.ERROR_REASON_INTERNAL:
        return error
    name = secrets.token_hex(8)
    _log.error("internal error", exc_info=error, extra={"id": name})
    return errors.InternalError(f"internal error, id={name}")


async def abort(context: Context, error: errors.ServeError) -> NoReturn:
    """End the call with the error's status. Raises grpc.aio.AbortError, always."""
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort_with_status: want an exception, got none")


def to_status(error: errors.ServeError) -> status_pb2.Status:
    """Return the status and its details."""
    info = error_details_pb2.ErrorInfo(domain=DOMAIN, reason=error_pb2.ErrorReason.Name(_reason(error)))
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidArgument):
        fields = (
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in _violations(error)
        )
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if isinstance(error, errors.Overloaded):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=_number(error), message=_cut(str(error)))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def to_failure(error: BaseException) -> error_pb2.Failure:
    """Return the refusal of one item of a stream; takes any exception, as `refusal` does."""
    known = refusal(error)
    violations = _violations(known) if isinstance(known, errors.InvalidArgument) else []
    return error_pb2.Failure(
        code=_number(known),
        message=_cut(str(known)),
        reason=_reason(known),
        violations=(
            error_pb2.FieldViolation(field=field, description=description)
            for field, description in violations
        ),
        retry_after_s=known.retry_after_s if isinstance(known, errors.Overloaded) else 0,
    )


def _reason(error: errors.ServeError) -> Reason:
    """Return the reason; an error that no method of the contract answers with is a defect."""
    known = (REASONS[cls] for cls in type(error).__mro__ if cls in REASONS)
    return next(known, error_pb2.ERROR_REASON_INTERNAL)


def _number(error: errors.ServeError) -> int:
    number: int = grpc.StatusCode[error.code].value[0]
    return number


def _violations(error: errors.InvalidArgument) -> list[tuple[str, str]]:
    said = [(_cut(field), _cut(description)) for field, description in error.violations[:MOST_VIOLATIONS]]
    if more := len(error.violations) - len(said):
        said.append(("", f"and {more} more"))
    return said


def _cut(text: str) -> str:
    body = text.encode()
    return text if len(body) <= LONGEST else body[: LONGEST - 3].decode(errors="ignore") + "..."
