"""A model that hides its gradients is named as such; one that does not is not."""

from __future__ import annotations

import grpc
import pytest
import torch
from torch import nn

from iguana.v1 import attack_pb2
from iguana_server.models.base import Model
from tests.rpc.service import serving, small_model
from tests.rpc.test_services import attack


class Steps(nn.Module):
    """Rounds its input to few levels: the gradient is zero everywhere, but the function still falls to queries."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net((x * 8).round() / 8)
        return logits


def masked() -> Model:
    """The small model behind rounding."""
    model = small_model()
    model.net = Steps(model.net)
    return model


def request(*, diagnose: bool) -> attack_pb2.AttackRequest:
    """PGD with a ball in which the small model falls."""
    return attack(n=4, method={"steps": [8], "epsilon": [0.25]}, diagnose=diagnose)


async def test_a_model_that_masks_its_gradients_is_named() -> None:
    async with serving(masked()) as service:
        reply = await service.attack.Attack(request(diagnose=True))
    for result in reply.results:
        assert result.diagnosis.zero_gradients == 1
        assert attack_pb2.SUSPICION_ZERO_GRADIENTS in result.diagnosis.suspicions
    fallen = [result for result in reply.results if result.outcome == attack_pb2.OUTCOME_FOOLED]
    assert fallen
    for result in fallen:
        won = {"noise": attack_pb2.SUSPICION_NOISE_WINS, "square": attack_pb2.SUSPICION_BLACK_BOX_WINS}
        assert won[result.attack] in result.diagnosis.suspicions
        assert result.forward > 9  # the looks of all that tried


async def test_without_diagnose_the_zero_gradients_are_told_all_the_same() -> None:
    async with serving(masked()) as service:
        reply = await service.attack.Attack(request(diagnose=False))
    for result in reply.results:
        assert result.outcome == attack_pb2.OUTCOME_HELD
        assert set(result.diagnosis.suspicions) == {
            attack_pb2.SUSPICION_ZERO_GRADIENTS,
            attack_pb2.SUSPICION_LOSS_DOES_NOT_RISE,
        }


async def test_a_plain_model_is_not_suspected() -> None:
    async with serving() as service:
        reply = await service.attack.Attack(request(diagnose=True))
    for result in reply.results:
        assert (result.outcome, result.attack) == (attack_pb2.OUTCOME_FOOLED, "pgd")
        assert not result.diagnosis.suspicions
        assert result.diagnosis.zero_gradients == 0
        assert result.diagnosis.loss_gain > 0


async def test_a_robust_model_is_not_suspected() -> None:
    """In a ball of a grey level nothing succeeds, by gradients or without."""
    async with serving() as service:
        reply = await service.attack.Attack(
            attack(n=4, method={"steps": [8], "epsilon": [1 / 255]}, diagnose=True)
        )
    held = [result for result in reply.results if result.outcome == attack_pb2.OUTCOME_HELD]
    assert held
    for result in held:
        assert not result.diagnosis.suspicions


@pytest.mark.parametrize("name", ["pgdl2", "noise", "forge"])
async def test_diagnose_is_refused_where_there_is_no_ball_to_compare_in(name: str) -> None:
    async with serving() as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.attack.Attack(attack(name, diagnose=True))
    want = f"diagnose: want false, but for attacks by gradients in an Linf ball, got {name}"
    assert want in str(refused.value.details())
