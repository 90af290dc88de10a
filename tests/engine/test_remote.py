"""An attack that is answered from outside is the engine's, bit for bit."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.engine import AttackJob, Engine, Forged
from iguana_server.engine.remote import Remote
from iguana_server.models.base import Model
from iguana_server.rpc.method import RESTARTS, fields_of
from iguana_server.rpc.remote import METHODS
from tests.engine.bench_by_hand import job
from tests.nets import CLASSES, pictures, toy

MODEL = toy()


def say(x: Tensor) -> Tensor:
    """What the engine sees: passes of the model's bucket, padded."""
    padded = torch.cat([x, x.new_zeros(-len(x) % MODEL.spec.bucket, *x.shape[1:])])
    with torch.no_grad():
        return torch.cat([MODEL(lot) for lot in torch.split(padded, MODEL.spec.bucket)])[: len(x)]


def play(made: AttackJob) -> tuple[list[Forged], list[int]]:
    """The answers, and the samples that were asked for."""
    remote = Remote(made, CLASSES, Model.memory_format)
    most = remote.looks
    answers: list[Forged] = []
    asked: list[int] = []
    while len(remote):
        samples, points = remote.ask()
        asked += samples
        answers += remote.tell(say(points))
    assert len(asked) <= most
    return sorted(answers, key=lambda answer: answer.sample), asked


def test_all_attacks_without_gradients_are_there_and_none_has_restarts() -> None:
    assert [
        *("boundary", "differences", "hopskipjump", "nes", "noise", "rays", "simba", "spsa"),
        *("square", "squarel2"),
    ] == METHODS
    assert not any(field.name == RESTARTS for name in METHODS for field in fields_of(ATTACKS[name]))


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize("name", METHODS)
async def test_remote_result_equals_the_engines_bit_for_bit(name: str, on_grid: bool) -> None:
    """Unlike rows: goals, stops, budgets."""
    attack, n = ATTACKS[name], 5
    budget = "queries" if "queries" in attack.parameters() else "steps"
    columns = {
        budget: torch.tensor([40, 23, 60, 3, 51]),
        "stop": torch.tensor([NEVER, FIRST_SUCCESS, NEVER, NEVER, FIRST_SUCCESS]),
        "label": torch.tensor([-1, 4, 7, -1, -1]),
        "targeted": torch.tensor([False, False, True, False, False]),
        "seed": torch.full((n,), 11),
    }
    made = job(MODEL, attack, pictures(n), "me", on_grid=on_grid, **columns)
    found, asked = play(made)
    with Engine({"toy": MODEL}) as engine:
        there = await engine.run(job(MODEL, attack, pictures(n), "me", on_grid=on_grid, **columns))
    assert len(found) == len(there) == n
    for one, other in zip(found, there, strict=True):
        for field in fields(Forged):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, (one.sample, field.name)
        assert asked.count(one.sample) == one.forward
        assert one.backward == 0
    assert any(one.forward >= 23 for one in found)


async def test_what_is_no_number_fails_its_sample_alone() -> None:
    made = job(MODEL, ATTACKS["square"], pictures(3), "me", queries=9, stop=NEVER)
    remote = Remote(made, CLASSES, Model.memory_format)
    failed: dict[int, bool] = {}
    while len(remote):
        samples, points = remote.ask()
        logits = say(points)
        logits[torch.tensor(samples) == 1] = float("nan")
        failed |= {answer.sample: answer.outcome == "failed" for answer in remote.tell(logits)}
    assert failed == {0: False, 1: True, 2: False}
