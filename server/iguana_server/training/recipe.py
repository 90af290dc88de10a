"""A recipe: the numbers that decide the weights, besides data and seed, and the loss that is descended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.attacks.pgd import PGD
from iguana_server.models import fashion_mnist as model
from iguana_server.models.base import Model
from iguana_server.training.batch import Batch
from iguana_server.training.climb import climb
from iguana_server.training.learner import Learner
from iguana_server.training.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """What all recipes have; training on the pictures as they are.

    Raises InvalidArgument where a number is out of its range.
    """

    epochs: int = setting(14, low=1, high=10_000, doc="times that every picture is seen")
    batch: int = setting(128, low=1, high=65_536, doc="pictures a step")
    peak: float = setting(0.1, low=0, high=100, doc="highest learning rate")
    rise: float = setting(0.2, low=0, high=0.99, doc="share of the steps before the peak")
    momentum: float = setting(0.9, low=0, high=1, doc="Nesterov's")
    weight_decay: float = setting(5e-4, low=0, high=1, doc="weight of the squared L2 norm of the weights")
    shift: int = setting(
        2, low=0, high=14, doc="pixels that a picture is moved, each way, in both directions"
    )
    width: int = setting(model.WIDTH, low=1, high=1024, doc="channels of the first convolution")

    @property
    def replays(self) -> int:
        """Steps for each batch."""
        return 1

    def net(self) -> nn.Module:
        """Build the network that is trained."""
        return model.net(self.width)

    def pictures(
        self, start: Model | None, images: Tensor, labels: Tensor, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return what is trained on: images [n, 1, 28, 28] uint8 and labels [n]. `start` has the first weights."""
        return images, labels

    def losses(self, learner: Learner, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Yield the loss of each step of an epoch; the caller descends it before it asks for the next."""
        for batch in batches:
            yield self.loss(learner, batch)

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the pictures."""
        return functional.cross_entropy(learner(batch.x), batch.label)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Recipe):
    """A recipe that trains on what the engine's PGD makes of the pictures, in the Linf ball of epsilon.

    The attack looks at the network as it would be served (see Learner.frozen: BatchNorm in eval mode); the
    loss is of the network in training mode. Random starts depend on seed, epoch and picture alone.
    """

    epochs: int = setting(10, low=1, high=10_000, doc="times that every picture is seen")
    shift: int = setting(
        0, low=0, high=14, doc="pixels that a picture is moved, each way, in both directions"
    )
    epsilon: float = setting(0.1, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")

    def table(
        self, batch: Batch, *, steps: int, random_start: bool = True, alpha: float | None = None
    ) -> PGD:
        """Return PGD on a batch; its alpha, if not given, is 2.5 epsilon / steps, at most epsilon."""
        table = PGD.new(
            batch.x,
            classes=len(model.CLASSES),
            label=batch.label,
            epsilon=self.epsilon,
            steps=steps,
            random_start=random_start,
            seed=batch.seed,
            sample=batch.rows,
            restart=batch.epoch,
        )
        if alpha is not None:
            table.alpha.fill_(alpha)
        return table


@dataclass(frozen=True, kw_only=True)
class Pairs(Adversarial):
    """A recipe whose loss sees each picture beside its adversarial twin, made by PGD of `steps` moves."""

    steps: int = setting(5, low=1, high=10_000, doc="moves of PGD")

    def twins(self, learner: Learner, batch: Batch) -> Tensor:
        """Return what the attack makes of the pictures."""
        return climb(learner.frozen(), self.table(batch, steps=self.steps))

    def pair(self, learner: Learner, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits of the pictures and of their twins, [n, 10] each, from one pass of both."""
        both = torch.cat([batch.x, self.twins(learner, batch)])
        clean, forged = learner(both).chunk(2)
        return clean, forged
