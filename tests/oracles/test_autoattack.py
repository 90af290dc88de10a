"""AutoAttack fools whom torchattacks' AutoAttack fools: other draws, the same attacks and budgets.

Equality is judged by robust accuracy: of 32 samples at most one may be held by one of the two alone.
"""

from __future__ import annotations

import warnings
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.autoattack import AutoAttack
from iguana_server.engine import AttackJob, Engine, Forged, Plan, in_turn
from tests.oracles.agreement import Agreement
from tests.oracles.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is years old
    import torchattacks

pytestmark = pytest.mark.filterwarnings("ignore")
RADII = {"toy": 1.0, "fashion-mnist-cnn": 0.5}  # some hold, some fall


async def ours(victim: Victim, epsilon: float) -> list[Forged]:
    """The answers of the standard version, in order."""
    n, name = len(victim.images), victim.model.spec.name
    values = {
        "epsilon": torch.full((n,), epsilon),
        "version": torch.zeros(n, dtype=torch.int64),
        "steps": torch.full((n,), victim.steps),
        "queries": torch.full((n,), 15 * victim.steps),
    }

    def job(act: Any, samples: Any) -> AttackJob:
        columns = {"label": victim.labels} | act.columns
        plan = Plan(attack=act.attack, columns=columns, loss_name=act.loss_name)
        plan.on_grid, plan.restarts = False, act.tries
        return AttackJob(victim.images, plan, method="test", model=name, caller="me", samples=samples)

    acts = [partial(job, act) for act in AutoAttack.acts(values, victim.classes)]
    answers = []
    with Engine({name: victim.model}) as engine:
        async with aclosing(in_turn(engine, n, acts)) as events:
            async for event in events:
                if isinstance(event, Forged):
                    answers.append(event)
    return sorted(answers, key=lambda one: one.sample)


def theirs(victim: Victim, epsilon: float) -> Tensor:
    """What torchattacks delivers, with as many queries."""
    attack = torchattacks.AutoAttack(victim.net, eps=epsilon, n_classes=victim.classes, seed=0)
    for one in attack._autoattack.attacks:
        if isinstance(one, torchattacks.Square):
            one.n_queries = 15 * victim.steps
        else:
            one.steps = victim.steps
    return torch.as_tensor(attack(victim.images, victim.labels))


@pytest.mark.suite("toy")
@pytest.mark.parametrize("victim", ["toy", "fashion-mnist-cnn"], indirect=True)
@pytest.mark.parametrize("epsilon", [0.03, 0.05])
async def test_robust_accuracy_is_that_of_torchattacks(
    epsilon: float, victim: Victim, agreement: Agreement
) -> None:
    victim = victim.first(32)
    epsilon *= RADII[victim.name]
    images, labels = victim.images, victim.labels
    answers = await ours(victim, epsilon)
    fallen = torch.tensor([one.fooled for one in answers])
    known = victim.net(theirs(victim, epsilon)).argmax(1) != labels
    agreement.note("autoattack", victim.name, rows=float((known == fallen).float().mean()))
    assert fallen.any()
    assert victim.name != "toy" or not fallen.all()
    assert int((known & ~fallen).sum()) <= 1
    assert int((fallen & ~known).sum()) <= 1
    for one in answers:
        change = (one.image - images[one.sample]).abs().max()
        assert float(change) <= epsilon + 1e-6
        assert (int(victim.model(one.image[None]).argmax()) != int(labels[one.sample])) == one.fooled
        assert one.attack in {"apgd", "apgdt", "fab", "square"}
