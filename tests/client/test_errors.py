from __future__ import annotations

import pickle

import grpc
import pytest

from iguana import Client, IguanaError, errors
from iguana.errors import from_failure
from iguana.v1 import error_pb2
from tests.client.scripted import Scripted, refuse

KINDS = [
    (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgument),
    (grpc.StatusCode.NOT_FOUND, errors.NotFound),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
    (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    (grpc.StatusCode.INTERNAL, errors.InternalError),
    (grpc.StatusCode.UNAUTHENTICATED, IguanaError),
]


@pytest.mark.parametrize(("code", "kind"), KINDS)
def test_each_code_has_its_error(
    client: Client, scripted: Scripted, cat: bytes, code: grpc.StatusCode, kind: type[IguanaError]
) -> None:
    scripted.acts.append(refuse(code, "because", reason="ERROR_REASON_INTERNAL"))
    with pytest.raises(IguanaError, match="because") as caught:
        client.classify(cat)
    assert type(caught.value) is kind
    assert caught.value.code is code
    assert caught.value.reason == "internal"
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(scripted.requests) == 1


def test_violations_and_retry_come_from_the_details(client: Client, scripted: Scripted, cat: bytes) -> None:
    violations = {"pgd.epsilon": "want [0, 1], got 8", "seed": "want less"}
    scripted.acts.append(
        refuse(grpc.StatusCode.INVALID_ARGUMENT, "two", violations=violations, retry_after_s=1.5)
    )
    with pytest.raises(errors.InvalidArgument) as caught:
        client.classify(cat)
    assert dict(caught.value.violations) == violations
    assert caught.value.retry_after_s == 1.5


def test_malformed_details_leave_code_and_text(client: Client, scripted: Scripted, cat: bytes) -> None:
    def act(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    scripted.acts.append(act)
    with pytest.raises(errors.NotFound, match="no such model") as caught:
        client.classify(cat)
    assert (caught.value.reason, caught.value.violations, caught.value.retry_after_s) == ("", (), None)


def test_a_failure_of_an_item_is_the_same_error() -> None:
    failure = error_pb2.Failure(
        code=3,
        message="x",
        reason=error_pb2.ERROR_REASON_INVALID_FIELD,
        violations=[error_pb2.FieldViolation(field="seed", description="want less")],
    )
    error = from_failure(failure)
    assert isinstance(error, errors.InvalidArgument)
    assert (error.reason, error.violations, error.retry_after_s) == (
        "invalid_field",
        (("seed", "want less"),),
        None,
    )
    assert from_failure(error_pb2.Failure(code=8, retry_after_s=2)).retry_after_s == 2
    assert type(from_failure(error_pb2.Failure(code=99))) is IguanaError


def test_errors_cross_processes() -> None:
    error = errors.Overloaded("full", reason="queue_full", retry_after_s=2.0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert isinstance(again, errors.Overloaded)
    assert (str(again), again.reason, again.retry_after_s) == ("full", "queue_full", 2.0)
