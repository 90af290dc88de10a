"""Goals: what counts as success for each sample, and the classes that it names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from iguana.v1 import attack_pb2
from iguana_server.rpc.faults import Faults, counts, text

CLEAN = -1  # the label that means the prediction of the clean image
_MOST_SUGGESTED = 8  # misfits of one request that get suggestions: each costs milliseconds


class Classes:
    """The classes of a model by name: the whole name, or a part of it between commas, in any case."""

    def __init__(self, model: str, names: Sequence[str]) -> None:
        """Take the names in the order of the logits."""
        self.model, self.names = model, names
        self._parts: dict[str, list[int]] = {}  # in lower case
        for index, name in enumerate(names):
            for part in dict.fromkeys([name, *name.split(",")]):
                self._parts.setdefault(part.strip().lower(), []).append(index)
        self._longest = max(map(len, self._parts))

    def find(self, ref: attack_pb2.ClassRef, field: str, faults: Faults) -> int:
        """Return the index of a class, or note why there is none and return CLEAN."""
        kind = ref.WhichOneof("kind")
        if kind == "index":
            if ref.index < len(self.names):
                return ref.index
            faults.add(f"{field}.index", f"0..{len(self.names) - 1}", str(ref.index))
        elif kind == "name":
            found = set(self._parts.get(ref.name.strip().lower(), []))
            if len(found) == 1:
                return found.pop()
            hint = self._several(found) if found else self._close(ref.name, len(faults))
            faults.add(f"{field}.name", f"a class of {self.model}", f"{text(ref.name)}{hint}")
        else:
            faults.add(field, "index or name", "neither")
        return CLEAN

    def _several(self, found: set[int]) -> str:
        these = "; ".join(f"{index} {self.names[index]}" for index in sorted(found))
        return f" (several, say which by index: {these})"

    def _close(self, name: str, misfits: int) -> str:
        if misfits >= _MOST_SUGGESTED or len(name) > 2 * self._longest:
            return ""
        close = difflib.get_close_matches(name.strip().lower(), self._parts)
        return f" (close: {', '.join(close)})" if close else ""


@dataclass(frozen=True)
class Goals:
    """One goal a sample: label [n] int64 to leave or, where targeted [n] bool, to reach."""

    label: torch.Tensor
    targeted: torch.Tensor


def to_goals(goals: Sequence[attack_pb2.Goal], n: int, classes: Classes, faults: Faults) -> Goals:
    """Read none, one or n goals for n samples."""
    if len(goals) not in (0, 1, n):
        faults.add("goals", f"none, {counts(n, 'goal')}", str(len(goals)))
        goals = ()
    read = [_read(goal, f"goals[{i}]", classes, faults) for i, goal in enumerate(goals)] or [(CLEAN, False)]
    label, targeted = zip(*(read * n if len(read) == 1 else read), strict=True)
    return Goals(torch.tensor(label), torch.tensor(targeted))


def _read(goal: attack_pb2.Goal, field: str, classes: Classes, faults: Faults) -> tuple[int, bool]:
    kind = goal.WhichOneof("kind")
    if kind == "targeted":
        if goal.targeted.HasField("target"):
            return classes.find(goal.targeted.target, f"{field}.targeted.target", faults), True
        faults.add(f"{field}.targeted.target", f"a class of {classes.model}", "none")
    elif kind == "untargeted":
        if goal.untargeted.HasField("label"):
            return classes.find(goal.untargeted.label, f"{field}.untargeted.label", faults), False
    else:
        faults.add(field, "untargeted or targeted", "neither")
    return CLEAN, False
