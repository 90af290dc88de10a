"""A script: attacks one after another, each on the samples that held so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from iguana_server.attacks.base import Attack, Method


@dataclass(frozen=True)
class Act:
    """One attack of a script: its columns [n], one value a sample, and the rows that each sample gets."""

    attack: type[Attack]
    loss_name: str
    columns: dict[str, Tensor]
    tries: int = 1


class Script(Method, ABC):
    """What a caller may name like an attack; never a table."""

    evades = False

    @classmethod
    @abstractmethod
    def acts(cls, values: Mapping[str, Tensor], classes: int) -> Sequence[Act]:
        """The attacks in their order, for parameters [n] on a model of so many classes (at least one act)."""
