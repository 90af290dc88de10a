"""Numbers and choices that decide a training, besides its data and seed: each is a flag of its command."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from iguana_server.errors import InvalidArgument


def setting(default: float, *, low: float, high: float, doc: str) -> Any:
    """Declare a number, within [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "doc": doc})


def choice(default: str, options: Iterable[str], *, doc: str) -> Any:
    """Declare a name, one of `options`."""
    return dataclasses.field(default=default, metadata={"options": tuple(options), "doc": doc})


def switch(*, doc: str) -> Any:
    """Declare what is off unless asked for."""
    return dataclasses.field(default=False, metadata={"doc": doc})


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """What all recipes declare. Raises InvalidArgument, naming each field that is out of its range."""

    name: ClassVar[str]
    paper: ClassVar[str]

    def __post_init__(self) -> None:
        if faults := self.faults():
            raise InvalidArgument.many([(f"{self.name}.{field}", fault) for field, fault in faults])

    def faults(self) -> list[tuple[str, str]]:
        """Return the fields that are out of their range, and what is wrong with each."""
        found = []
        for field in dataclasses.fields(self):
            value, declared = getattr(self, field.name), field.metadata
            if "options" in declared and value not in declared["options"]:
                found.append((field.name, f"want one of {', '.join(declared['options'])}, got {value}"))
            if "low" in declared and not declared["low"] <= value <= declared["high"]:
                low, high = declared["low"], declared["high"]
                found.append((field.name, f"want a number in [{low}, {high}], got {value}"))
        return found
