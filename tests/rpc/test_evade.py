"""An attack on a model and its detectors, through a real server: what it calls a success, Detect lets pass."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest
import pytest_asyncio

from iguana.v1 import attack_pb2, detect_pb2, image_pb2, verdict_pb2
from tests.detectors.waves import SHA256, safety_net, waves
from tests.rpc.service import Service, serving, small_model, tensor
from tests.rpc.test_services import attack

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = small_model()
NET = safety_net(MODEL)
N = 6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched() -> AsyncIterator[Service]:
    async with serving(MODEL, small_model("bare"), nets={"small": NET}) as running:
        yield running


def images(n: int = N) -> list[image_pb2.Image]:
    return [tensor((x.permute(1, 2, 0) * 255).round().byte().numpy()) for x in waves(MODEL, n, seed=4)]


def request(evade: attack_pb2.Evade | None, n: int = N, **fields: Any) -> attack_pb2.AttackRequest:
    method = {"steps": [40], "epsilon": [0.25], "alpha": [0.02]}
    made = attack(n=n, method=method, **fields)
    del made.images[:]
    made.images.extend(images(n))
    if evade is not None:
        made.evade.CopyFrom(evade)
    return made


async def test_a_success_is_not_flagged_and_detect_says_the_same(watched: Service) -> None:
    reply = await watched.attack.Attack(request(attack_pb2.Evade()))
    forged = [tensor(np.asarray(PIL.Image.open(io.BytesIO(r.image.encoded)))) for r in reply.results]
    for asked, name in ((forged, "after"), (images(), "before")):
        found = await watched.detect.Detect(detect_pb2.DetectRequest(model="small", images=asked))
        for result, detection in zip(reply.results, found.detections, strict=True):
            assert getattr(result.evasion, name) == detection.verdict
    fooled = [result for result in reply.results if result.outcome == attack_pb2.OUTCOME_FOOLED]
    assert fooled
    for result in fooled:
        assert not result.evasion.after.flagged
        assert result.after.top[0].index != result.before.top[0].index


async def test_the_manifest_says_what_was_used(watched: Service) -> None:
    guard = verdict_pb2.Guard(detectors=["squeeze", "lid"], false_positive_rate=0.1)
    reply = await watched.attack.Attack(request(attack_pb2.Evade(guard=guard, weight=[2.0]), n=2))
    assert reply.manifest.evade == attack_pb2.Evade(
        guard=guard, balance=attack_pb2.BALANCE_JOINT, weight=[2.0, 2.0]
    )
    assert reply.manifest.run.calibration_sha256 == SHA256
    for result in reply.results:
        assert [mark.detector for mark in result.evasion.after.marks] == ["squeeze", "lid"]
        assert result.evasion.after.false_positive_rate == 0.1
    plain = await watched.attack.Attack(request(None, n=2))
    assert not plain.manifest.HasField("evade")
    assert plain.manifest.run.calibration_sha256 == ""
    assert not any(result.HasField("evasion") for result in plain.results)


async def test_a_watched_attack_and_a_batch_say_the_same(watched: Service) -> None:
    asked = request(attack_pb2.Evade(balance=attack_pb2.BALANCE_IN_TURN), n=3)
    reply = await watched.attack.Attack(asked)
    events = watched.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=asked))
    seen = [event.result async for event in events if event.HasField("result")]
    assert sorted(seen, key=lambda result: result.sample) == list(reply.results)


async def test_queries_are_counted_with_the_views(watched: Service) -> None:
    views = NET.screen((), 0).panel.looks
    made = request(attack_pb2.Evade(), n=2, stop_on=attack_pb2.STOP_ON_NEVER)
    reply = await watched.attack.Attack(made)
    assert [result.forward for result in reply.results] == [(40 + 1) * (1 + views)] * 2


async def test_diagnosis_tries_what_holds_under_the_same_watch(watched: Service) -> None:
    made = request(attack_pb2.Evade(), n=1, diagnose=True)
    made.pgd.epsilon[:] = [0.004]
    made.pgd.alpha[:] = [0.004]
    reply = await watched.attack.Attack(made)
    for result in reply.results:
        assert result.outcome != attack_pb2.OUTCOME_FOOLED or not result.evasion.after.flagged


REFUSALS = [
    (
        attack_pb2.Evade(weight=[1, 2, 3]),
        {},
        "evade.weight: want 1 or 2 values in [0, 1000], got [1.0, 2.0, 3.0]",
    ),
    (attack_pb2.Evade(weight=[-1]), {}, "evade.weight: want 1 or 2 values in [0, 1000], got [-1.0]"),
    (
        attack_pb2.Evade(weight=[1], balance=attack_pb2.BALANCE_IN_TURN),
        {},
        "evade.weight: want none with BALANCE_IN_TURN, got [1.0]",
    ),
    (
        attack_pb2.Evade(guard=verdict_pb2.Guard(detectors=["sqeeze"])),
        {},
        "evade.guard.detectors[0]: want one of",
    ),
    (
        attack_pb2.Evade(guard=verdict_pb2.Guard(false_positive_rate=0.9)),
        {},
        "evade.guard.false_positive_rate: want 0.01 (of 99 clean pictures) to 0.5, got 0.9",
    ),
    (attack_pb2.Evade(), {"model": "bare"}, "evade.guard: want a model that has detectors"),
    (attack_pb2.Evade(), {"ddn": attack_pb2.Ddn()}, "evade: want none with ddn, which goes by the logits"),
    (attack_pb2.Evade(), {"autoattack": attack_pb2.Autoattack()}, "evade: want none with autoattack"),
]


@pytest.mark.parametrize(("evade", "fields", "want"), REFUSALS)
async def test_what_cannot_be_is_refused_by_name(
    evade: attack_pb2.Evade, fields: dict[str, Any], want: str, watched: Service
) -> None:
    made = request(evade, n=2)
    made.MergeFrom(attack_pb2.AttackRequest(**fields))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched.attack.Attack(made)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert want in str(caught.value.details())
