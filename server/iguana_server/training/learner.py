"""A network in training: pixels in, logits out; and as the engine would serve it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from iguana_server.models.base import Model
from iguana_server.models.fashion_mnist import MEAN, STD, spec


class Learner:
    """What a recipe's loss sees: the network with its weights' gradients, or frozen for an attack."""

    def __init__(self, net: nn.Module) -> None:
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, x: Tensor) -> Tensor:
        """Map pixels in [0, 1], [n, 1, 28, 28], to logits [n, 10], in the mode that the network is in."""
        logits: Tensor = self.net(normalise(x))
        return logits

    def frozen(self) -> Model:
        """Return a copy as the engine would serve it: eval mode, BatchNorm folded, gradients in pixels only.

        That is what attacks in training look at: BatchNorm has its running statistics, so no row of a batch
        sees another, and its statistics do not learn from the attack's looks (Pang et al. 2021,
        arXiv:2010.00467, find no loss of robustness in that).
        """
        device = torch.device("cpu")
        declared = spec("in-training", "a network in training", "none yet", device)
        return Model(declared, copy.deepcopy(self.net), sha256="", device=device)


def normalise(x: Tensor) -> Tensor:
    """Bring pixels in [0, 1], [n, 1, 28, 28], to the network's range, channels_last."""
    return ((x - MEAN) / STD).contiguous(memory_format=torch.channels_last)
