"""Looks of detectors are rows like any other: they share passes, and have their features."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from iguana_server.engine import ClassifyJob, Engine, Looked
from iguana_server.engine.meter import Silent
from iguana_server.models.base import Model
from tests.rpc.service import small_ensemble, small_model


class Passes(Silent):
    """The rows of each pass."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        self.rows.append(rows)


def job(images: torch.Tensor, *, features: bool) -> ClassifyJob:
    return ClassifyJob(images, method="test", model="small", caller="me", features=features)


@pytest.mark.parametrize("made", [small_model, small_ensemble])
async def test_features_are_those_of_the_model_in_any_company(made: Callable[[str], Model]) -> None:
    model, meter = made("small"), Passes()
    x = torch.rand(7, *model.spec.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        padded = torch.cat([x, torch.zeros(1, *model.spec.shape)])
        want = [
            torch.cat(parts) for parts in zip(model.look(padded[:4]), model.look(padded[4:]), strict=True)
        ]
    with Engine({"small": model}, meter=meter) as engine:
        asked, plain = job(x[:5], features=True), job(x[5:], features=False)
        answers: Any = await asyncio.gather(engine.run(asked), engine.run(plain))
    for i, one in enumerate(answers[0]):
        assert isinstance(one, Looked)
        assert torch.equal(one.features, want[1][i])
        assert torch.equal(one.logits, want[0][i])
    for i, one in enumerate(answers[1]):
        assert one.features.shape == (0,)
        assert torch.equal(one.logits, want[0][5 + i])
    assert sum(meter.rows) == 7


async def test_a_picture_and_its_views_share_passes() -> None:
    model, meter = small_model(), Passes()
    x = torch.rand(5, *model.spec.shape, generator=torch.Generator().manual_seed(0))
    with Engine({"small": model}, meter=meter) as engine:
        await engine.run(job(x, features=True))
    assert sorted(meter.rows) in ([5], [1, 4])  # a STRICT pass of 4, and one that is padded
