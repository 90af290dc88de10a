from __future__ import annotations

import grpc

from iguana_server import errors


def test_every_error_has_a_status_of_grpc() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ServeError)
    ]
    assert len(kinds) > 5
    assert {kind.code for kind in kinds} <= set(grpc.StatusCode.__members__)
    assert errors.ModelRefused.code == "FAILED_PRECONDITION"


def test_all_violations_are_said() -> None:
    one = errors.InvalidArgument("pgd.epsilon", "want 1 value in [0, 1], got [8.0]")
    assert str(one) == "pgd.epsilon: want 1 value in [0, 1], got [8.0]"
    two = errors.InvalidArgument.many([("a", "want 1, got 2"), ("b", "missing")])
    assert isinstance(two, errors.InvalidArgument)
    assert two.violations == (("a", "want 1, got 2"), ("b", "missing"))
    assert str(two) == "a: want 1, got 2; b: missing"


def test_not_found_suggests() -> None:
    error = errors.NotFound("model", "lite0", ["efficientnet-lite0"])
    assert str(error) == "model: no 'lite0' (close: efficientnet-lite0)"
    assert str(errors.NotFound("model", "x")) == "model: no 'x'"


def test_overloaded_says_when_to_come_back() -> None:
    assert errors.Overloaded("queue: full", 1.5).retry_after_s == 1.5
