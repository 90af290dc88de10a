"""Evade: the detectors that an attack is to be led past, as asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from iguana.v1 import attack_pb2, verdict_pb2
from iguana_server.attacks.catalog import CATALOG
from iguana_server.detectors.net import SafetyNet, Screen
from iguana_server.detectors.watch import Watch
from iguana_server.rpc import guard
from iguana_server.rpc.bounds import MAX_WEIGHT
from iguana_server.rpc.faults import Faults, bound, counts, listed
from iguana_server.rpc.words import IN_TURN

_DEFAULT_WEIGHT = 1.0


@dataclass(frozen=True)
class Evading:
    """What the engine needs, and Evade as used."""

    screen: Screen
    watch: Watch
    columns: dict[str, torch.Tensor]  # [n], of Attack
    used: attack_pb2.Evade


def to_evading(
    request: attack_pb2.AttackRequest, net: SafetyNet | None, model: str, faults: Faults
) -> Evading | None:
    """Read AttackRequest.evade of a request whose number of images is right; None where it is not set, or faulty."""
    if not request.HasField("evade"):
        return None
    asked, own, n = request.evade, Faults(f"{faults.path}evade."), len(request.images)
    method = CATALOG.get(request.WhichOneof("method") or "")
    if method is not None and not method.evades:
        faults.add("evade", f"none with {method.name}, which goes by the logits", "one")
    screen = guard.to_screen(asked.guard, net, model, own)
    balance = IN_TURN.read(own, "balance", asked.balance)
    weight = _weight(asked, n, own, in_turn=IN_TURN.meanings[balance])
    faults.extend(own)
    if screen is None or net is None or own:
        return None
    names = [detector.name for detector in screen.panel.detectors]
    watch = net.watch(screen)
    return Evading(
        screen=screen,
        watch=watch,
        columns={
            "allowed": torch.full((n,), watch.limit(screen.rate)),
            "suspicion_weight": weight,
            "in_turn": torch.full((n,), IN_TURN.meanings[balance]),
        },
        used=attack_pb2.Evade(
            guard=verdict_pb2.Guard(detectors=names, false_positive_rate=screen.rate),
            balance=balance,
            weight=() if IN_TURN.meanings[balance] else weight.tolist(),
        ),
    )


def _weight(asked: attack_pb2.Evade, n: int, faults: Faults, *, in_turn: bool) -> torch.Tensor:
    """Read none, one or n weights: [n]."""
    given = list(asked.weight)
    if in_turn and given:
        faults.add("weight", "none with BALANCE_IN_TURN", listed(given))
    elif len(given) not in (0, 1, n) or not all(0 <= w <= MAX_WEIGHT for w in given):  # NaN is not
        faults.add("weight", f"{counts(n, 'value')} in [0, {bound(MAX_WEIGHT)}]", listed(given))
    else:
        return torch.tensor(given or [_DEFAULT_WEIGHT]).expand(n).clone()
    return torch.zeros(n)
