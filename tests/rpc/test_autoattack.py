"""AutoAttack over the wire: attacks in turn, under one name."""

from __future__ import annotations

import grpc
import pytest

from iguana.v1 import attack_pb2
from tests.rpc.service import serving
from tests.rpc.test_services import attack

BUDGET: dict[str, list[float]] = {"steps": [4], "queries": [30], "epsilon": [1 / 255]}


async def test_whoever_holds_is_tried_by_the_next() -> None:
    async with serving() as service:
        reply = await service.attack.Attack(attack("autoattack", n=6, method=BUDGET, seed=3))
        again = await service.attack.Attack(attack("autoattack", n=6, method=BUDGET, seed=3))
    assert reply == again
    assert reply.manifest.method == "autoattack"
    assert [result.sample for result in reply.results] == list(range(6))
    looks = {result.outcome: result.forward for result in reply.results}
    for result in reply.results:
        assert result.norms.linf <= 1 / 255 + 1e-6
        assert result.attack in {"apgd", "apgdt", "fab", "square"}
    assert looks[attack_pb2.OUTCOME_HELD] > 2 * 4 + 30  # of all four


async def test_a_version_is_one_for_all() -> None:
    both = {"version": [1, 2], **{name: value * 2 for name, value in BUDGET.items()}}
    async with serving() as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.attack.Attack(attack("autoattack", n=2, method=both))
    assert "autoattack.version: want the same for all samples, got both" in str(refused.value.details())


async def test_a_loss_of_the_callers_is_refused() -> None:
    async with serving() as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.attack.Attack(attack("autoattack", method=BUDGET, loss=attack_pb2.LOSS_MARGIN))
    assert "loss: want LOSS_UNSPECIFIED with autoattack, which has its own" in str(refused.value.details())


async def test_rand_takes_two_attacks() -> None:
    async with serving() as service:
        reply = await service.attack.Attack(
            attack("autoattack", n=6, method={**BUDGET, "version": [attack_pb2.AUTOATTACK_VERSION_RAND]})
        )
    assert {result.attack for result in reply.results} == {"apgd"}
