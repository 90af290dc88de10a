from __future__ import annotations

from iguana_server import errors

STATUSES = {
    "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
    "CANCELLED", "UNAVAILABLE", "INTERNAL",
}  # fmt: skip


def tree(root: type[errors.ServeError]) -> list[type[errors.ServeError]]:
    return [root] + [leaf for branch in root.__subclasses__() for leaf in tree(branch)]


def test_every_error_has_a_status_and_a_reason_of_its_own() -> None:
    kinds = tree(errors.ServeError)
    assert {kind.code for kind in kinds} == STATUSES
    reasons = [kind.reason for kind in kinds if kind is not errors.InternalError]
    assert len(set(reasons)) == len(reasons)
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
