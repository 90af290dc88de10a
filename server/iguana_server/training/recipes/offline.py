"""Adversarial training offline, as CS230 teaches it: forge a set once, label it as a human sees it, retrain.

Szegedy et al. 2014, arXiv:1312.6199, 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from iguana_server.errors import InvalidArgument
from iguana_server.models.base import Model
from iguana_server.training.batch import Batch
from iguana_server.training.climb import climb
from iguana_server.training.recipe import Adversarial
from iguana_server.training.settings import setting

PICTURES = 1000  # forged in one pass


@dataclass(frozen=True, kw_only=True)
class Offline(Adversarial):
    """Minimise CE over the pictures and a forged twin of each, made by PGD against the first weights.

    Twins are pictures as they could be sent, on the 8-bit grid, and have the labels of their originals. The
    network goes on from the weights that were attacked.
    """

    name = "offline"
    paper = "Szegedy et al. 2014, arXiv:1312.6199"

    steps: int = setting(10, low=1, high=10_000, doc="moves of PGD")

    def pictures(
        self, start: Model | None, images: Tensor, labels: Tensor, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return the pictures and after them their twins; raises InvalidArgument without a model to attack."""
        if start is None:
            raise InvalidArgument("start", f"want weights for {self.name} to attack, got none")
        forged = []
        for rows in torch.split(torch.arange(len(labels)), PICTURES):
            batch = Batch(images[rows].float() / 255, labels[rows], rows, seed, epoch=0)
            table = self.table(batch, steps=self.steps)
            table.on_grid = True
            forged.append(climb(start, table).mul(255).round().byte())
        return torch.cat([images, *forged]), torch.cat([labels, labels])
