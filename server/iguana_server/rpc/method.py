"""Methods: the message of an attack and the parameters of its class, which meet by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from iguana.v1 import attack_pb2, image_pb2
from iguana_server.attacks.base import Attack, Parameter
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.faults import Faults, bound, counts, listed

RESTARTS = "restarts"  # the one field that is no column: each try is a row of its own
METHODS: Mapping[str, FieldDescriptor] = {
    field.name: field for field in attack_pb2.AttackRequest.DESCRIPTOR.oneofs_by_name["method"].fields
}


@dataclass(frozen=True)
class Method:
    """An attack as asked for: its parameters as columns [n], but for images; how often each sample is tried."""

    attack: type[Attack]
    columns: dict[str, torch.Tensor]
    restarts: int | None  # None where the attack has none

    def moves(self, n: int) -> int:
        """Of all rows of n samples together."""
        steps = int(self.columns["steps"].sum()) if "steps" in self.columns else n
        return steps * (self.restarts or 1)

    @property
    def used(self) -> dict[str, list[float]]:
        """Every parameter as used, one value a sample."""
        used = {name: column.tolist() for name, column in self.columns.items()}
        if self.restarts is not None:
            n = len(next(iter(self.columns.values())))
            used[RESTARTS] = [self.restarts] * n
        return used


def fields_of(attack: type[Attack]) -> Sequence[FieldDescriptor]:
    """Return the fields of an attack's message, in the order of the contract."""
    message = METHODS[attack.name].message_type
    assert message is not None  # noqa: S101 - every method is a message
    return message.fields


def highest(parameter: Parameter, limits: Limits) -> float:
    """Return the greatest value that this server takes."""
    return min(parameter.high, limits.max_steps) if parameter.name == "steps" else parameter.high


def images_of(request: attack_pb2.AttackRequest) -> Mapping[str, Sequence[image_pb2.Image]]:
    """Return the images of the request's method, by the parameter's name."""
    name = request.WhichOneof("method")
    if name is None:
        return {}
    images = (p.name for p in ATTACKS[name].parameters().values() if p.kind == "image")
    return {parameter: getattr(getattr(request, name), parameter) for parameter in images}


def to_method(request: attack_pb2.AttackRequest, n: int, limits: Limits, faults: Faults) -> Method | None:
    """Read the attack of n samples; None where the request names none."""
    name = request.WhichOneof("method")
    if name is None:
        faults.add("method", f"one of {', '.join(ATTACKS)}", "none")
        return None
    attack, message = ATTACKS[name], getattr(request, name)
    own = Faults(f"{faults.path}{name}.")
    parameters = attack.parameters()
    columns: dict[str, torch.Tensor] = {}
    given: set[str] = set()
    for field in fields_of(attack):
        parameter = parameters.get(field.name)
        if parameter is not None and parameter.kind != "image":
            values = getattr(message, field.name)
            columns[field.name] = _column(values, parameter, field, n, limits, own)
            if values:
                given.add(field.name)
    columns |= attack.derived(columns, given)
    for parameter_name, images in images_of(request).items():
        if len(images) not in (0, 1, n):
            own.add(parameter_name, f"none, {counts(n, 'image')}", str(len(images)))
    if not own:  # else the values are not the caller's
        for parameter_name, description in attack.faults(columns):
            own.say(parameter_name, description)
    restarts = _restarts(message, columns, limits, own)
    faults.extend(own)
    return Method(attack, columns, restarts)


def _column(
    values: Sequence[Any],
    parameter: Parameter,
    field: FieldDescriptor,
    n: int,
    limits: Limits,
    faults: Faults,
) -> torch.Tensor:
    """Read a parameter given not at all, once, or once a sample: [n]."""
    dtype = {"float": torch.float32, "bool": torch.bool}.get(parameter.kind, torch.int64)
    column = torch.full((n,), parameter.default, dtype=dtype)
    low, high = parameter.low, highest(parameter, limits)
    legal: tuple[float, float] = (low, high)
    if parameter.kind == "float":
        want = f" in [{bound(low)}, {bound(high)}]"
        legal = float(np.float32(low)), float(np.float32(high))
    elif parameter.kind == "int":
        want = f" in {bound(low)}..{bound(high)}"
    elif parameter.kind == "choice":
        want, legal = f" of {', '.join(choices(field))}", (0, len(parameter.choices))
    else:
        want = ""
    want = counts(n, "value") + want
    if not values:
        if parameter.default > high:  # this server's limit is below the contract's default
            faults.add(field.name, want, f"none, which means {bound(parameter.default)}")
        return column
    if len(values) not in (1, n) or not all(legal[0] <= value <= legal[1] for value in values):  # NaN is not
        faults.add(field.name, want, listed(values))
        return column
    given = torch.tensor(list(values), dtype=dtype)
    if parameter.kind == "choice":
        given = torch.where(given == 0, int(parameter.default), given - 1)  # 0 means the default
    return column.copy_(given)


def _restarts(
    message: Message, columns: Mapping[str, torch.Tensor], limits: Limits, faults: Faults
) -> int | None:
    given: int | None = getattr(message, RESTARTS, None)
    if given is None:
        return None
    if given > limits.max_restarts:
        faults.add(RESTARTS, f"1..{limits.max_restarts}", str(given))
    elif given > 1 and not columns["random_start"].all():
        faults.add(RESTARTS, "1 where random_start is false", str(given))
    return given or 1


def choices(field: FieldDescriptor) -> list[str]:
    """Return the names of an enum's values, without the unspecified one."""
    assert field.enum_type is not None  # noqa: S101 - the field is a choice
    return [value.name for value in field.enum_type.values if value.number != 0]
