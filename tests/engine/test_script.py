"""Acts follow one another on the samples that hold."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import torch

from iguana_server.attacks.catalog import ATTACKS
from iguana_server.engine import AttackJob, Engine, Forged, Plan, Progress, in_turn
from iguana_server.engine.answer import Ended
from tests.nets import pictures, toy

N = 6
PGD = ATTACKS["pgd"]


class Play:
    """Acts of PGD with these radii, and the samples that each was given."""

    def __init__(self, *radii: float, time_limit_s: float | None = None) -> None:
        self.images, self.model, self.limit = pictures(N), toy(), time_limit_s
        self.given: list[list[int]] = []
        self.acts = [lambda samples, radius=radius: self.job(radius, samples) for radius in radii]

    def job(self, radius: float, samples: Sequence[int]) -> AttackJob:
        self.given.append(list(samples))
        columns = {
            "epsilon": torch.full((N,), radius),
            "steps": torch.full((N,), 4),
            "random_start": torch.ones(N, dtype=torch.bool),
        }
        plan = Plan(attack=PGD, columns=columns, time_limit_s=self.limit, report_every=1)
        return AttackJob(
            self.images, plan, method="test", model=self.model.spec.name, caller="me", samples=samples
        )

    async def run(self) -> tuple[list[Forged], int]:
        """Answers in order, and reports."""
        answers, reports = [], 0
        with Engine({self.model.spec.name: self.model}) as engine:
            async with aclosing(in_turn(engine, N, self.acts)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        reports += 1
                    else:
                        answers.append(event)
        return sorted(answers, key=lambda one: one.sample), reports


async def test_only_those_that_held_go_on_and_the_counts_add_up() -> None:
    alone, _ = await Play(0.03).run()
    held = [one.sample for one in alone if one.outcome == "held"]
    assert 0 < len(held) < N
    play = Play(0.03, 0.5)
    answers, reports = await play.run()
    assert [one.sample for one in answers] == list(range(N))
    assert play.given == [list(range(N)), held]
    assert reports
    for one, before in zip(answers, alone, strict=True):
        if one.sample in held:
            assert one.outcome == "fooled"
            assert one.backward > before.backward
        else:
            assert torch.equal(one.image, before.image)


async def test_an_act_gives_a_sample_what_it_would_give_it_alone() -> None:
    """Draws are keyed by the sample's own number: who else holds makes no difference."""
    after, _ = await Play(0.03, 0.05).run()
    at_once, _ = await Play(0.05).run()
    held = [one.sample for one in (await Play(0.03).run())[0] if one.outcome == "held"]
    assert held
    for sample in held:
        if after[sample].fooled:
            assert torch.equal(after[sample].image, at_once[sample].image)


async def test_a_time_limit_ends_the_play() -> None:
    play = Play(0.001, 0.001, time_limit_s=0.0)
    answers, _ = await play.run()
    assert len(play.given) == 1
    assert {one.ended for one in answers if one.outcome == "held"} == {Ended.TIME_LIMIT}
