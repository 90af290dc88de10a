"""Every error has one status, with details that a program can act on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from iguana.v1 import error_pb2
from iguana_server import errors
from iguana_server.rpc import status
from tests.rpc.scripted import FAULTS


def _detail(answer: status_pb2.Status, kind: Any) -> Any:
    for packed in answer.details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_status_says_its_reason(code: str) -> None:
    answer = status.to_status(status.refusal(FAULTS[code]()))
    assert answer.code == grpc.StatusCode[code].value[0]
    info = _detail(answer, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "iguana.v1"
    assert error_pb2.ErrorReason.Value(info.reason) != error_pb2.ERROR_REASON_UNSPECIFIED


def test_every_error_of_the_tree_has_a_reason_of_its_own_or_is_a_defect() -> None:
    tree = {
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ServeError)
    }
    defects = {errors.ServeError, errors.FailedPrecondition, errors.ModelRefused}
    assert tree - set(status.REASONS) == defects
    assert len(set(status.REASONS.values())) == len(status.REASONS)
    assert set(status.REASONS.values()) == set(error_pb2.ErrorReason.values()) - {0}


def test_bad_request_names_every_field() -> None:
    error = errors.InvalidArgument.many([("images", "want 1, got 0"), ("top_k", "want 1 to 1000, got 5000")])
    bad = _detail(status.to_status(error), error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == list(error.violations)


def test_overload_says_when_to_retry() -> None:
    retry = _detail(status.to_status(errors.Overloaded("queue: full", 1.5)), error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_status_fits_the_metadata_however_many_faults() -> None:
    error = errors.InvalidArgument.many([(f"images[{i}]" * 50, "é" * 5000) for i in range(5000)])
    answer = status.to_status(error)
    percent_encoded, base64 = 3 * len(answer.message.encode()), 4 * len(answer.SerializeToString()) / 3
    assert percent_encoded + base64 < 8192 - 512
    bad = _detail(answer, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert bad.field_violations[-1].description == "and 4994 more"


def test_defect_is_logged_once_and_tells_the_caller_its_id_alone(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ZeroDivisionError("secret")
    except ZeroDivisionError as error:
        answer = status.refusal(error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(answer) == f"internal error, id={record.__dict__['id']}"
    assert answer.code == "INTERNAL"


@pytest.mark.parametrize("error", [errors.ModelRefused("x"), errors.InternalError("weights at /path")])
def test_what_no_method_answers_with_is_a_defect(error: errors.ServeError) -> None:
    assert str(status.refusal(error)).startswith("internal error, id=")


@pytest.mark.parametrize("turn", [status.refusal, status.to_failure])
def test_cancellation_is_never_an_answer(turn: object) -> None:
    assert callable(turn)
    with pytest.raises(asyncio.CancelledError):
        turn(asyncio.CancelledError())


def test_failure_of_an_item_says_what_the_call_would_have_said() -> None:
    failure = status.to_failure(errors.InvalidArgument("top_k", "want 1 to 1000, got 5000"))
    assert failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert failure.reason == error_pb2.ERROR_REASON_INVALID_FIELD
    assert [(v.field, v.description) for v in failure.violations] == [("top_k", "want 1 to 1000, got 5000")]
    assert status.to_failure(errors.Overloaded("full", 2.5)).retry_after_s == 2.5
    assert status.to_failure(KeyError("x")).reason == error_pb2.ERROR_REASON_INTERNAL
