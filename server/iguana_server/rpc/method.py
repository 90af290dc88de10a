"""Methods: the message of an attack and the parameters of its class, which meet by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from google.protobuf.descriptor import FieldDescriptor

from iguana.v1 import attack_pb2, image_pb2
from iguana_server.attacks import base
from iguana_server.attacks.base import Attack, Parameter
from iguana_server.attacks.catalog import CATALOG
from iguana_server.attacks.script import Act, Script
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.faults import Faults, bound, counts, listed

RESTARTS, TARGETS = "restarts", "targets"  # one value a request: each try is a row of its own
_BOUNDED = {"steps": "max_steps", "queries": "max_queries"}  # parameters with a limit of the server's
_MOST_TARGETS = 9  # classes of an attack that aims at each of the likeliest: Croce and Hein 2020
METHODS: Mapping[str, FieldDescriptor] = {
    field.name: field for field in attack_pb2.AttackRequest.DESCRIPTOR.oneofs_by_name["method"].fields
}


@dataclass(frozen=True)
class Method:
    """A method as asked for: its parameters as columns [n], but for images; how often each sample is tried."""

    kind: type[base.Method]
    columns: dict[str, torch.Tensor]
    scalars: dict[str, int]  # restarts and targets, where the attack has them

    @property
    def tries(self) -> int:
        """Rows of a sample."""
        return math.prod(self.scalars.values())

    def looks(self, n: int) -> int:
        """Of all rows of n samples together."""
        given = {"steps": torch.ones(n, dtype=torch.int64)} | self.columns
        return int(self.kind.looks(given).sum()) * self.tries

    def acts(self, loss_name: str, classes: int) -> Sequence[Act]:
        """Return the attacks in their order: one, but for a script."""
        if issubclass(self.kind, Script):
            return self.kind.acts(self.columns, classes)
        assert issubclass(self.kind, Attack)  # noqa: S101 - there is nothing else
        return [Act(self.kind, loss_name, self.columns, self.tries)]

    @property
    def used(self) -> dict[str, list[float]]:
        """Every parameter as used, one value a sample."""
        used = {name: column.tolist() for name, column in self.columns.items()}
        n = len(next(iter(self.columns.values())))
        return used | {name: [value] * n for name, value in self.scalars.items()}


def fields_of(kind: type[base.Method]) -> Sequence[FieldDescriptor]:
    """Return the fields of a method's message, in the order of the contract."""
    message = METHODS[kind.name].message_type
    assert message is not None  # noqa: S101 - every method is a message
    return message.fields


def highest(parameter: Parameter, limits: Limits) -> float:
    """Return the greatest value that this server takes."""
    limit = _BOUNDED.get(parameter.name)
    return min(parameter.high, getattr(limits, limit)) if limit else parameter.high


def scalar(name: str, limits: Limits) -> Parameter:
    """Return what is declared of a field that is given once a request."""
    if name == RESTARTS:
        most, default, doc = limits.max_restarts, 1, "tries of each sample"
    else:
        most, default, doc = (
            _MOST_TARGETS,
            _MOST_TARGETS,
            "likeliest other classes that are aimed at, each by a try",
        )
    return Parameter(name=name, kind="int", low=1, high=most, default=default, doc=doc)


def images_of(request: attack_pb2.AttackRequest) -> Mapping[str, Sequence[image_pb2.Image]]:
    """Return the images of the request's method, by the parameter's name."""
    name = request.WhichOneof("method")
    if name is None:
        return {}
    images = (p.name for p in CATALOG[name].parameters().values() if p.kind == "image")
    return {parameter: getattr(getattr(request, name), parameter) for parameter in images}


def to_method(
    request: attack_pb2.AttackRequest, n: int, classes: int, limits: Limits, faults: Faults
) -> Method | None:
    """Read the attack of n samples on a model of so many classes; None where the request names none."""
    name = request.WhichOneof("method")
    if name is None:
        faults.add("method", f"one of the {len(CATALOG)} that ListAttacks tells, such as pgd", "none")
        return None
    kind, message = CATALOG[name], getattr(request, name)
    own = Faults(f"{faults.path}{name}.")
    parameters = kind.parameters()
    columns: dict[str, torch.Tensor] = {}
    given: set[str] = set()
    for field in fields_of(kind):
        parameter = parameters.get(field.name)
        if parameter is not None and parameter.kind != "image":
            values = getattr(message, field.name)
            columns[field.name] = _column(values, parameter, field, n, limits, own)
            if values:
                given.add(field.name)
    columns |= kind.derived(columns, given)
    for parameter_name, images in images_of(request).items():
        if len(images) not in (0, 1, n):
            own.add(parameter_name, f"none, {counts(n, 'image')}", str(len(images)))
    if not own:  # else the values are not the caller's
        for parameter_name, description in kind.faults(columns):
            own.say(parameter_name, description)
    scalars = {field.name: 1 for field in fields_of(kind) if field.name in (RESTARTS, TARGETS)}
    if RESTARTS in scalars:
        scalars[RESTARTS] = _restarts(message.restarts, columns, limits, own)
    if TARGETS in scalars:
        scalars[TARGETS] = _targets(message.targets, classes, own)
        columns[TARGETS] = torch.full((n,), scalars[TARGETS])
    faults.extend(own)
    return Method(kind, columns, scalars)


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


def _restarts(given: int, columns: Mapping[str, torch.Tensor], limits: Limits, faults: Faults) -> int:
    if given > limits.max_restarts:
        faults.add(RESTARTS, f"1..{limits.max_restarts}", str(given))
    elif given > 1 and "random_start" in columns and not columns["random_start"].all():
        faults.add(RESTARTS, "1 where random_start is false", str(given))
    return given or 1


def _targets(given: int, classes: int, faults: Faults) -> int:
    """Read how many classes are aimed at; by default as many as there are, up to nine."""
    most = min(_MOST_TARGETS, classes - 1)
    if given > most:
        faults.add(TARGETS, f"1..{most}", str(given))
    return given or most


def choices(field: FieldDescriptor) -> list[str]:
    """Return the names of an enum's values, without the unspecified one."""
    assert field.enum_type is not None  # noqa: S101 - the field is a choice
    return [value.name for value in field.enum_type.values if value.number != 0]
