"""AutoAttack: Croce and Hein 2020, arXiv:2003.01690. Parameter-free attacks, each on who held so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iguana_server.attacks.apgd import APGD
from iguana_server.attacks.apgdt import APGDT
from iguana_server.attacks.base import param
from iguana_server.attacks.fab import FAB
from iguana_server.attacks.script import Act, Script
from iguana_server.attacks.square import Square

STANDARD, RAND = 0, 1
TARGETS = 9  # likeliest other classes


class AutoAttack(Script):
    """Auto-PGD, targeted Auto-PGD, FAB and Square in an Linf ball, each on the samples that held so far."""

    name = "autoattack"
    paper = "Croce and Hein 2020, arXiv:2003.01690"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    version: Tensor = param(
        STANDARD,
        low=0,
        high=1,
        kind="choice",
        choices=("standard", "rand"),
        doc="which attacks: all four, or Auto-PGD with two losses, for defences that mask gradients at random",
    )
    steps: Tensor = param(
        100, low=1, high=10_000, kind="int", doc="moves of each attack that takes gradients"
    )
    queries: Tensor = param(
        5000, low=3, high=10_000, kind="int", doc="proposals of Square; what changes nothing is not looked at"
    )

    @classmethod
    def faults(cls, values: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        """One version a request: it says which attacks are run."""
        if (values["version"] == values["version"][0]).all():
            return []
        return [("version", "want the same for all samples, got both")]

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """[n] of a sample that holds to the end; the two targeted attacks aim at up to nine classes."""
        rand = values["version"] == RAND
        standard = values["steps"] * (1 + TARGETS + 3 * TARGETS) + values["queries"]
        return torch.where(rand, 2 * values["steps"], standard)

    @classmethod
    def acts(cls, values: Mapping[str, Tensor], classes: int) -> Sequence[Act]:
        """As the authors' `standard` and `rand`. DLR and targets need 4 classes; without them there is CE alone."""
        epsilon, steps = values["epsilon"], values["steps"]
        ball = {"epsilon": epsilon, "steps": steps, "random_start": torch.ones_like(steps, dtype=torch.bool)}
        first = Act(APGD, "cross_entropy", ball)
        if values["version"][0] == RAND:
            return [first, Act(APGD, "dlr", ball)] if classes > 3 else [first]
        targets = min(TARGETS, classes - 1)
        aimed = {"targets": torch.full_like(steps, targets)}
        sparing = torch.ones_like(steps, dtype=torch.bool)
        square = Act(Square, "margin", {"epsilon": epsilon, "queries": values["queries"], "sparing": sparing})
        fab = Act(FAB, "margin", aimed | {"steps": steps, "limit": epsilon}, targets)
        if classes > 3:
            return [first, Act(APGDT, "dlr", ball | aimed, targets), fab, square]
        return [first, fab, square]
