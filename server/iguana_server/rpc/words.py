"""The wire's enums and what their values mean inside: every such table is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
from google.protobuf.descriptor import EnumDescriptor

from iguana.v1 import attack_pb2, image_pb2, manifest_pb2
from iguana_server.attacks.base import FIRST_SUCCESS, MARGIN, NEVER
from iguana_server.engine.answer import Ended
from iguana_server.rpc.faults import Faults

N = TypeVar("N", bound=int)  # the numbers of an enum
T = TypeVar("T")


@dataclass(frozen=True)
class Words(Generic[N, T]):
    """An enum that callers set: the numbers it may have, what each means, and which one 0 means."""

    enum: EnumDescriptor
    meanings: Mapping[N, T]  # by number, without 0
    default: N

    def read(self, faults: Faults, field: str, number: int, default: N | None = None) -> N:
        """Return the number as used. One that the enum does not have is noted (proto3 lets any int through)."""
        if number in self.meanings:
            return cast(N, number)
        if number != 0:
            names = [self.name(known) for known in self.meanings]
            faults.add(field, f"{', '.join(names[:-1])} or {names[-1]}", str(number))
        return self.default if default is None else default

    def name(self, number: int) -> str:
        """Return the name of a number."""
        name: str = self.enum.values_by_number[number].name
        return name

    def number(self, meaning: T) -> N:
        """Return the number of a meaning."""
        return next(number for number, known in self.meanings.items() if known == meaning)


STOP_ON: Words[attack_pb2.StopOn.ValueType, int] = Words(
    attack_pb2.StopOn.DESCRIPTOR,
    {
        attack_pb2.STOP_ON_FIRST_SUCCESS: FIRST_SUCCESS,
        attack_pb2.STOP_ON_MARGIN: MARGIN,
        attack_pb2.STOP_ON_NEVER: NEVER,
    },
    attack_pb2.STOP_ON_FIRST_SUCCESS,
)

KEEP_LAST: Words[attack_pb2.Keep.ValueType, bool] = Words(
    attack_pb2.Keep.DESCRIPTOR,
    {attack_pb2.KEEP_BEST: False, attack_pb2.KEEP_LAST: True},
    attack_pb2.KEEP_BEST,
)

ON_GRID: Words[attack_pb2.OutputGrid.ValueType, bool] = Words(
    attack_pb2.OutputGrid.DESCRIPTOR,
    {attack_pb2.OUTPUT_GRID_UINT8: True, attack_pb2.OUTPUT_GRID_FLOAT: False},
    attack_pb2.OUTPUT_GRID_UINT8,
)

PNG: Words[image_pb2.Encoding.ValueType, bool] = Words(
    image_pb2.Encoding.DESCRIPTOR,
    {image_pb2.ENCODING_PNG: True, image_pb2.ENCODING_TENSOR: False},
    image_pb2.ENCODING_PNG,
)

STRICT: Words[manifest_pb2.Determinism.ValueType, bool] = Words(
    manifest_pb2.Determinism.DESCRIPTOR,
    {manifest_pb2.DETERMINISM_STRICT: True, manifest_pb2.DETERMINISM_FAST: False},
    manifest_pb2.DETERMINISM_STRICT,
)

IN_TURN: Words[attack_pb2.Balance.ValueType, bool] = Words(
    attack_pb2.Balance.DESCRIPTOR,
    {attack_pb2.BALANCE_JOINT: False, attack_pb2.BALANCE_IN_TURN: True},
    attack_pb2.BALANCE_JOINT,
)

# 0 is the attack's own loss.
LOSS: Words[attack_pb2.Loss.ValueType, str] = Words(
    attack_pb2.Loss.DESCRIPTOR,
    {
        attack_pb2.LOSS_CROSS_ENTROPY: "cross_entropy",
        attack_pb2.LOSS_MARGIN: "margin",
        attack_pb2.LOSS_DLR: "dlr",
        attack_pb2.LOSS_LOGIT: "logit",
        attack_pb2.LOSS_L2: "l2",
        attack_pb2.LOSS_L1: "l1",
    },
    attack_pb2.LOSS_UNSPECIFIED,
)

# 0 is refused: there is no default.
DTYPE: Words[image_pb2.Dtype.ValueType, np.dtype[np.uint8] | np.dtype[np.float32]] = Words(
    image_pb2.Dtype.DESCRIPTOR,
    {image_pb2.DTYPE_UINT8: np.dtype(np.uint8), image_pb2.DTYPE_FLOAT32: np.dtype("<f4")},
    image_pb2.DTYPE_UNSPECIFIED,
)

OUTCOME: Mapping[str, attack_pb2.Outcome.ValueType] = {
    "fooled": attack_pb2.OUTCOME_FOOLED,
    "held": attack_pb2.OUTCOME_HELD,
    "already": attack_pb2.OUTCOME_ALREADY,
    "failed": attack_pb2.OUTCOME_FAILED,
}

ENDED: Mapping[Ended, attack_pb2.Ended.ValueType] = {
    Ended.STOP: attack_pb2.ENDED_STOP,
    Ended.STEPS: attack_pb2.ENDED_STEPS,
    Ended.TIME_LIMIT: attack_pb2.ENDED_TIME_LIMIT,
    Ended.ALREADY: attack_pb2.ENDED_ALREADY,
    Ended.NON_FINITE: attack_pb2.ENDED_NON_FINITE,
}
