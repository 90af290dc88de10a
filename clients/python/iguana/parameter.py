"""The parameters of attacks: keyword arguments checked against the message of the method.

The descriptor is the only list of them, so a new attack or parameter in the contract needs nothing here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from iguana import choice
from iguana.errors import InvalidArgument, UnknownParameter, invalid
from iguana.image import to_images
from iguana.v1 import attack_pb2, image_pb2

METHODS: Mapping[str, FieldDescriptor] = {
    field.name: field for field in attack_pb2.AttackRequest.DESCRIPTOR.oneofs_by_name["method"].fields
}
"""The field of `AttackRequest.method` by the attack's name."""


def fields_of(method: str) -> Mapping[str, FieldDescriptor]:
    """The parameters of an attack. Raises `InvalidArgument` for a name that is no attack's."""
    if method not in METHODS:
        near = choice.near(method, METHODS)
        raise InvalidArgument(f"method: no attack {method!r}; {near}", violations=[("method", near)])
    message = METHODS[method].message_type
    assert message is not None  # noqa: S101  every method is a message
    return message.fields_by_name


def set_parameters(request: attack_pb2.AttackRequest, method: str, parameters: Mapping[str, Any]) -> None:
    """Set the request's method. None means not given; any other value is one, or one a sample.

    Raises `UnknownParameter` for a name that the method does not have, `InvalidArgument` for a value that its
    field cannot hold. Ranges are the server's to judge.
    """
    fields = fields_of(method)
    message: Message = getattr(request, method)
    message.SetInParent()
    for name, value in parameters.items():
        if name not in fields:
            near = choice.near(name, fields)
            raise UnknownParameter(
                f"{method}.{name}: no such parameter; {near}", violations=[(f"{method}.{name}", near)]
            )
        if value is None:
            continue
        field, path = fields[name], f"{method}.{name}"
        if not field.is_repeated:
            setattr(message, name, _scalar(path, value, field))
        elif field.message_type is not None:
            getattr(message, name).extend(_images(path, value, field))
        else:
            getattr(message, name).extend(_column(path, value, field))


def uint(path: str, value: object, bits: int = 32) -> int:
    """A whole number of the wire. Raises `InvalidArgument` for anything else, a bool too."""
    try:
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = None
    if whole is None or not 0 <= whole < 1 << bits:
        raise invalid(path, f"a whole number in [0, 2^{bits})", repr(value))
    return whole


def real(path: str, value: object) -> float:
    """A real number of the wire. Raises `InvalidArgument` for anything else, a bool or text too."""
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return float(value)
    raise invalid(path, "a number", repr(value))


def _column(path: str, value: object, field: FieldDescriptor) -> list[Any]:
    if (
        isinstance(value, str)
        or not isinstance(value, Iterable)
        or (isinstance(value, np.ndarray) and value.ndim == 0)
    ):
        return [_scalar(path, value[()] if isinstance(value, np.ndarray) else value, field)]
    column = [_scalar(f"{path}[{i}]", one, field) for i, one in enumerate(value)]
    if not column:
        raise invalid(path, "one value, or one a sample", "none")  # on the wire it would mean the default
    return column


def _scalar(path: str, value: object, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return choice.number(path, value, field.enum_type)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool | np.bool_):
            raise invalid(path, "True or False", repr(value))
        return bool(value)
    if field.type == FieldDescriptor.TYPE_UINT32:
        return uint(path, value)
    return real(path, value)


def _images(path: str, value: Any, field: FieldDescriptor) -> list[image_pb2.Image]:
    assert field.message_type is image_pb2.Image.DESCRIPTOR  # noqa: S101  the contract's only repeated message
    images = to_images(path, value)
    if not images:
        raise invalid(path, "one picture, or one a sample", "none")
    return images
