"""Faults: all that is wrong with one request, each with the path of its field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from iguana_server.errors import InvalidArgument

_SHOWN = 8  # values of a list
_LONGEST = 64  # characters of a text


class Faults:
    """A list that grows while a request is read, so that the caller hears of everything at once."""

    def __init__(self, path: str = "") -> None:
        """`path` comes before every field: "" or such as "request."."""
        self.path = path
        self._found: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """How many."""
        return len(self._found)

    def add(self, field: str, want: str, got: str) -> None:
        """Note a field, what was wanted and what came."""
        self._found.append((self.path + field, f"want {want}, got {got}"))

    def say(self, field: str, description: str) -> None:
        """Note a field that somebody else has found words for."""
        self._found.append((self.path + field, description))

    def extend(self, other: Faults | InvalidArgument) -> None:
        """Note what was found elsewhere; the fields are whole paths already."""
        self._found += other._found if isinstance(other, Faults) else other.violations

    def check(self) -> None:
        """Raise InvalidArgument with all that was found, if anything was."""
        if self._found:
            raise InvalidArgument.many(self._found)


def number(value: float) -> str:
    """Write a number of the wire, a float32 or an integer, in the fewest digits that tell it."""
    return str(value) if isinstance(value, int) else str(np.float32(value))


def bound(value: float) -> str:
    """Write an end of a range: whole numbers without a point."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:g}"


def text(value: str) -> str:
    """Quote a caller's text, cut and escaped."""
    return ascii(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")


def listed(values: Sequence[Any]) -> str:
    """Write a list of numbers, or its length where that is long; `values` may be any sequence of the wire."""
    if len(values) > _SHOWN:
        return f"{len(values)} values"
    return f"[{', '.join(number(value) for value in values)}]"


def counts(n: int, noun: str) -> str:
    """Write how many values fit n samples: "1 or 4 values"."""
    return f"1 {noun}" if n == 1 else f"1 or {n} {noun}s"
