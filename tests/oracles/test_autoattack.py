"""AutoAttack fools whom torchattacks' AutoAttack fools: other draws, the same attacks and budgets.

Equality is judged by robust accuracy: of 32 samples at most one may be held by one of the two alone.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.autoattack import AutoAttack
from iguana_server.engine import AttackJob, Engine, Forged, Plan, in_turn
from iguana_server.models.base import Model
from tests.nets import CLASSES, pictures, toy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is years old
    import torchattacks

pytestmark = pytest.mark.filterwarnings("ignore")
N, STEPS, QUERIES = 32, 10, 150


async def ours(model: Any, images: Tensor, labels: Tensor, epsilon: float) -> list[Forged]:
    """The answers of the standard version, in order."""
    values = {
        "epsilon": torch.full((N,), epsilon),
        "version": torch.zeros(N, dtype=torch.int64),
        "steps": torch.full((N,), STEPS),
        "queries": torch.full((N,), QUERIES),
    }

    def job(act: Any, samples: Any) -> AttackJob:
        plan = Plan(attack=act.attack, columns={"label": labels} | act.columns, loss_name=act.loss_name)
        plan.on_grid, plan.restarts = False, act.tries
        return AttackJob(images, plan, method="test", model=model.spec.name, caller="me", samples=samples)

    acts = [partial(job, act) for act in AutoAttack.acts(values, CLASSES)]
    answers = []
    with Engine({model.spec.name: model}) as engine:
        async with aclosing(in_turn(engine, N, acts)) as events:
            async for event in events:
                if isinstance(event, Forged):
                    answers.append(event)
    return sorted(answers, key=lambda one: one.sample)


def theirs(model: Any, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """What torchattacks delivers, with as many queries."""
    attack = torchattacks.AutoAttack(model, eps=epsilon, n_classes=CLASSES, seed=0)
    for one in attack._autoattack.attacks:
        if isinstance(one, torchattacks.Square):
            one.n_queries = QUERIES
    return torch.as_tensor(attack(images.contiguous(), labels))


class Net(torch.nn.Module):
    """The model as the library can take it: in the plain memory format, which its FAB asks for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = copy.deepcopy(model.net).to(memory_format=torch.contiguous_format)
        self.scale, self.bias = model._scale, model._bias

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x * self.scale + self.bias)
        return logits


@pytest.mark.parametrize("epsilon", [0.03, 0.05])
async def test_robust_accuracy_is_that_of_torchattacks(epsilon: float) -> None:
    model, images = toy(), pictures(N)
    labels = model(images).argmax(1)

    net = Net(model).eval()
    answers = await ours(model, images, labels, epsilon)
    fallen = torch.tensor([one.fooled for one in answers])
    known = net(theirs(net, images, labels, epsilon)).argmax(1) != labels
    assert 0 < int(fallen.sum()) < N
    assert int((known & ~fallen).sum()) <= 1
    assert int((fallen & ~known).sum()) <= 1
    for one in answers:
        change = (one.image - images[one.sample]).abs().max()
        assert float(change) <= epsilon + 1e-6
        assert (int(model(one.image[None]).argmax()) != int(labels[one.sample])) == one.fooled
        assert one.attack in {"apgd", "apgdt", "fab", "square"}
