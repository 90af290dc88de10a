"""The wire's enums as lower-case words: LOSS_CROSS_ENTROPY is "cross_entropy"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from google.protobuf.descriptor import EnumDescriptor

from iguana.errors import InternalError, invalid


def words(enum: EnumDescriptor) -> dict[str, int]:
    """The numbers of an enum's values by their words, without the unspecified one."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {v.name.removeprefix(prefix).lower(): v.number for v in enum.values if v.number != 0}


def number(field: str, word: object, enum: EnumDescriptor) -> int:
    """The number of a word. Raises `InvalidArgument` that lists the words."""
    choices = words(enum)
    if not isinstance(word, str) or word not in choices:
        raise invalid(field, f"one of {', '.join(choices)}", repr(word))
    return choices[word]


def word_of(value: int, enum: EnumDescriptor) -> str:
    """The word of a number that came back. Raises `InternalError` if this client does not know it."""
    for word, known in words(enum).items():
        if known == value:
            return word
    raise InternalError(
        f"{enum.full_name}: want one of {', '.join(words(enum))}, got {value}; is the client too old?"
    )


def near(name: str, names: Iterable[str]) -> str:
    """The names like `name`, as the end of a refusal; all of them if none is like it."""
    names = list(names)
    close = difflib.get_close_matches(name, names)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(names))}"
