"""Numbers of the command line: 0.03, 8/255, 1e-2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from iguana import choice, parameter
from iguana.errors import UnknownParameter, invalid


def parse_number(text: str) -> float:
    """A number or a fraction of two. Raises ValueError for anything else."""
    numerator, slash, denominator = text.partition("/")
    value = float(numerator) / float(denominator) if slash and float(denominator) != 0 else float(text)
    if not math.isfinite(value):
        raise ValueError(f"want a finite number, got {text!r}")
    return value


def parse_parameters(method: str, assignments: Sequence[str]) -> dict[str, Any]:
    """`name=value` texts as keyword arguments of an attack; a name given n times is a value a sample."""
    fields = parameter.fields_of(method)
    columns: dict[str, list[Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise invalid("--param", "NAME=VALUE", repr(assignment))
        if name not in fields:
            near = choice.near(name, fields)
            raise UnknownParameter(f"--param: {method} has no parameter {name!r}; {near}")
        columns.setdefault(name, []).append(_value(f"{method}.{name}", text, fields[name]))
    return {name: column[0] if len(column) == 1 else column for name, column in columns.items()}


def _value(path: str, text: str, field: FieldDescriptor) -> Any:
    if field.message_type is not None or field.enum_type is not None:
        return text  # a picture's path, or a choice's word
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            raise invalid(path, "true or false", repr(text))
        return text == "true"
    try:
        return int(text) if field.type == FieldDescriptor.TYPE_UINT32 else parse_number(text)
    except ValueError as error:
        want = (
            "a whole number"
            if field.type == FieldDescriptor.TYPE_UINT32
            else "a number such as 0.03 or 8/255"
        )
        raise invalid(path, want, repr(text)) from error
