"""A victim that the attack never sees looks once at what was made for another model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch

from iguana.v1 import attack_pb2, classify_pb2, image_pb2
from iguana_server.models.base import Model
from tests.rpc.service import CLASSES, Service, serving, small_model, tensors
from tests.rpc.test_services import attack, target


def other() -> Model:
    """A model near the small one: the same weights but for noise, and a larger picture of its own."""
    model = small_model("other")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Service]:
    """A surrogate, a victim, and one of other classes."""
    strange = small_model("strange", classes=tuple(reversed(CLASSES)))
    async with serving(small_model(), other(), strange) as service:
        yield service


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def seen(service: Service, images: list[image_pb2.Image]) -> list[classify_pb2.Classification]:
    """What the victim itself says of these pictures."""
    reply = await service.classify.Classify(classify_pb2.ClassifyRequest(model="other", images=images))
    return list(reply.classifications)


async def test_the_victim_says_of_a_delivered_picture_what_it_says_of_the_file(both: Service) -> None:
    request = attack(n=3, method={"steps": [8], "epsilon": [0.2]}, victim="other")
    reply = await both.attack.Attack(request)
    after = await seen(both, [result.image for result in reply.results])
    before = await seen(both, tensors(3))
    assert any(result.transfer.fooled for result in reply.results)
    for result, clean, forged in zip(reply.results, before, after, strict=True):
        assert result.transfer.before == clean
        assert result.transfer.after == forged
        assert result.transfer.fooled == (forged.top[0].index != clean.top[0].index)


async def test_a_watched_attack_and_a_batch_say_the_same(both: Service) -> None:
    request = attack(n=3, method={"steps": [8], "epsilon": [0.2]}, victim="other")
    reply = await both.attack.Attack(request)
    watched = [
        event.result
        async for event in both.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=request))
        if event.HasField("result")
    ]
    assert sorted(watched, key=lambda result: result.sample) == list(reply.results)


async def test_a_target_must_be_reached_with_the_victim(both: Service) -> None:
    goals = [target(i) for i in range(len(CLASSES))]
    request = attack(n=len(CLASSES), method={"steps": [8], "epsilon": [0.5]}, victim="other", goals=goals)
    reply = await both.attack.Attack(request)
    for i, result in enumerate(reply.results):
        assert result.transfer.fooled == (result.transfer.after.top[0].index == i)


async def test_the_victim_changes_nothing_of_the_attack(both: Service) -> None:
    request = attack(n=3, method={"steps": [4]})
    alone = await both.attack.Attack(request)
    request.victim = "other"
    shown = await both.attack.Attack(request)
    for one, two in zip(alone.results, shown.results, strict=True):
        assert not one.HasField("transfer")
        two.ClearField("transfer")
        assert one == two
    assert np.all([result.forward == alone.results[i].forward for i, result in enumerate(shown.results)])


@pytest.mark.parametrize(
    ("victim", "code", "text"),
    [
        ("nobody", grpc.StatusCode.NOT_FOUND, "victim"),
        ("strange", grpc.StatusCode.INVALID_ARGUMENT, "victim: want a model with the classes of small"),
    ],
)
async def test_a_victim_that_cannot_judge_is_refused_before_any_work(
    both: Service, victim: str, code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await both.attack.Attack(attack(n=1, victim=victim))
    assert refused.value.code() == code
    assert text in str(refused.value.details())
