"""Attacks that are to pass detectors as well: one pass for both, each row with its own weight and limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.engine import AttackJob, ClassifyJob, Engine, Forged, Plan
from tests.detectors.waves import safety_net, waves
from tests.rpc.service import small_model

MODEL = small_model()
NET = safety_net(MODEL)
SCREEN = NET.screen((), 0)
WATCH = NET.watch(SCREEN)
N = 6
EVADING = [name for name, attack in ATTACKS.items() if attack.evades]


def job(
    name: str, images: Tensor, *, watched: bool = True, samples: list[int] | None = None, **columns: Any
) -> AttackJob:
    """An attack of few looks on these images, or on those of them."""
    attack, n = ATTACKS[name], len(images)
    few = {"steps": 8, "queries": 24, "seed": 5, "neighbours": 2, "copies": 2} | columns
    if watched:
        few = {"allowed": WATCH.limit(SCREEN.rate)} | few
    known = attack.columns()
    made = {
        key: torch.full((n,), value, dtype=known[key].dtype) if not isinstance(value, Tensor) else value
        for key, value in few.items()
        if key in known
    }
    plan = Plan(attack=attack, columns=made, watch=WATCH if watched else None)
    return AttackJob(images, plan, method="test", model="small", caller="me", samples=samples)


async def run(*jobs: AttackJob | ClassifyJob) -> list[list[Forged]]:
    with Engine({"small": MODEL}) as engine:
        answers: Any = await asyncio.gather(*(engine.run(one) for one in jobs))
    return list(answers)


def flagged(image: Tensor) -> bool:
    scores = SCREEN.panel.examine(MODEL, image.unsqueeze(0))
    return SCREEN.judge({name: float(column[0]) for name, column in scores.items()}).flagged


def same(one: Forged, other: Forged) -> bool:
    columns = ("image", "before", "after")
    return all(torch.equal(getattr(one, c), getattr(other, c)) for c in columns)


@pytest.mark.parametrize("name", EVADING)
async def test_with_a_weight_of_0_it_is_the_plain_attack_bit_for_bit(name: str) -> None:
    images = waves(MODEL, N, seed=3)
    asked: dict[str, Any] = {"stop": NEVER, "keep_last": True, "epsilon": 0.2, "alpha": 0.05}
    ((plain), (evading)) = await run(job(name, images, watched=False, **asked), job(name, images, **asked))
    for one, other in zip(plain, evading, strict=True):
        assert same(one, other)
        assert one.loss == other.loss
        assert other.forward == one.forward * WATCH.looks
        assert other.backward == one.backward


@pytest.mark.parametrize("way", [{"suspicion_weight": 10.0}, {"in_turn": True}], ids=["joint", "in turn"])
async def test_it_fools_the_model_unseen_where_the_plain_attack_is_seen(way: dict[str, Any]) -> None:
    images = waves(MODEL, 24, seed=4)
    asked: dict[str, Any] = {"steps": 60, "epsilon": 0.25, "alpha": 0.02}
    plain, evading = await run(
        job("pgd", images, watched=False, stop=NEVER, **asked), job("pgd", images, **asked, **way)
    )
    through = sum(one.fooled for one in evading)
    assert all(one.fooled == (one.margin > 0) for one in evading)
    assert not any(flagged(one.image) for one in evading if one.fooled)
    assert sum(one.fooled and not flagged(one.image) for one in plain) < through
    assert through >= 8


async def test_a_target_is_reached_unseen() -> None:
    images = waves(MODEL, 12, seed=5)
    asked: dict[str, Any] = {"steps": 80, "epsilon": 0.4, "alpha": 0.02, "targeted": True, "label": 1}
    ((evading),) = await run(job("pgd", images, suspicion_weight=1.0, **asked))
    reached = [one for one in evading if one.fooled]
    assert reached
    for one in reached:
        assert int(one.after.argmax()) == 1
        assert not flagged(one.image)


async def test_company_changes_nothing() -> None:
    """Plain attacks, other detectors, looks, rows with other weights: bit for bit as alone."""
    images = waves(MODEL, N, seed=6)
    weights = torch.linspace(0, 5, N)

    def mine(samples: list[int] | None = None) -> AttackJob:
        asked: dict[str, Any] = {
            "epsilon": 0.2,
            "alpha": 0.04,
            "suspicion_weight": weights,
            "stop": FIRST_SUCCESS,
        }
        return job("pgd", images, samples=samples, **asked)

    ((alone),) = await run(mine())
    other = NET.watch(NET.screen(["squeeze"], 0))
    strange = job("apgd", images, epsilon=0.1)
    strange.plan.watch = strange.watch = other
    looks = ClassifyJob(images, method="test", model="small", caller="she", features=True)
    together, *_ = await run(
        mine(), job("pgd", images, watched=False), strange, looks, job("square", images, in_turn=True)
    )
    for i, one in enumerate(alone):
        assert same(one, together[i])
        assert (one.fooled, one.margin, one.forward) == (
            together[i].fooled,
            together[i].margin,
            together[i].forward,
        )
        ((single),) = await run(mine([i]))
        assert same(one, single[0])


class Odd:
    """A watch that goes wrong on pictures with a white corner."""

    looks, max_batch, sizes = WATCH.looks, WATCH.max_batch, WATCH.sizes

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, suspicion = WATCH(x)
        return logits, suspicion.masked_fill(x[:, 0, 0, 0] > 0.95, torch.nan)


async def test_suspicion_that_is_no_number_fails_the_row_alone() -> None:
    images = waves(MODEL, 4, seed=7).clamp(0.2, 0.7)
    images[2, 0, 0, 0] = 1.0
    asked = job("pgd", images, epsilon=0.02, alpha=0.01, suspicion_weight=1.0)
    asked.plan.watch = asked.watch = Odd()  # type: ignore[assignment]
    ((answers),) = await run(asked)
    assert [one.outcome == "failed" for one in answers] == [False, False, True, False]
