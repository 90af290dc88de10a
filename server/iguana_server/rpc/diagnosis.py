"""Diagnosis: whether an attack that failed met a robust model, or one that only hides its gradients.

Athalye et al. 2018 (arXiv:1802.00420), section 3.1: gradients that are zero, a loss that does not climb, random
noise or an attack without gradients that does better than one with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from iguana.v1 import attack_pb2
from iguana_server.attacks.noise import Noise
from iguana_server.attacks.script import Act
from iguana_server.attacks.square import Square
from iguana_server.engine.answer import Forged

DRAWS, QUERIES = 20, 300  # looks of the two baselines
_SHARE = 0.5  # of gradients that are zero
_FEWEST = 4  # candidates from which a trend is read
_BASELINES: Mapping[str, attack_pb2.Suspicion.ValueType] = {
    Noise.name: attack_pb2.SUSPICION_NOISE_WINS,
    Square.name: attack_pb2.SUSPICION_BLACK_BOX_WINS,
}


def baselines(act: Act) -> Sequence[Act]:
    """Return what must do worse than this attack in the same Linf ball, for the samples that it did not fool."""
    epsilon = act.columns["epsilon"]
    return [
        Act(Noise, "margin", {"epsilon": epsilon, "steps": torch.full(epsilon.shape, DRAWS)}),
        Act(Square, "margin", {"epsilon": epsilon, "queries": torch.full(epsilon.shape, QUERIES)}),
    ]


def diagnosis(forged: Forged, asked: str) -> attack_pb2.Diagnosis:
    """Return what speaks of masked gradients in the answer for a sample; `asked` is the method of the request."""
    zero = forged.zero_gradients / forged.backward if forged.backward else 0.0
    pairs = max(0, forged.judgements - 1)
    found = attack_pb2.Diagnosis(
        zero_gradients=zero,
        rising=forged.rises / pairs if pairs else 0.0,
        loss_gain=forged.loss - forged.first_loss,
    )
    if zero >= _SHARE:
        found.suspicions.append(attack_pb2.SUSPICION_ZERO_GRADIENTS)
    climbed = forged.rises or forged.judgements < _FEWEST or not forged.backward
    if forged.outcome == "held" and not climbed:
        found.suspicions.append(attack_pb2.SUSPICION_LOSS_DOES_NOT_RISE)
    if forged.outcome == "fooled" and forged.attack != asked and forged.attack in _BASELINES:
        found.suspicions.append(_BASELINES[forged.attack])
    return found
