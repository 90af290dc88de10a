"""What attacks share that see the label only, and look for the nearest picture that fools."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import NEVER, state
from iguana_server.attacks.queries import Query, wide

START, BISECT = 0, 1  # values of the column `phase`; the others are the attack's own


class Decision(Query):
    """No ball: of the pictures that fool, the nearest is kept."""

    norm = "none"
    default_stop = NEVER
    evades = False

    def hits(self, logits: Tensor) -> Tensor:
        """[n] bool: rows whose last look reached the goal; all that is known of it."""
        return (logits.argmax(1) == self.label) == self.targeted

    def score(self, z: Tensor, loss: Tensor, margin: Tensor) -> Tensor:
        """Minus the distance."""
        return -self.distance_of(z)

    def distance_of(self, z: Tensor) -> Tensor:
        """[n] distance of z from the clean image: L2."""
        return ops.l2_distance(z, self.x0)

    def shown(self, z: Tensor) -> Tensor:
        """[n, C, H, W] z as it would be delivered."""
        if self.on_grid:
            ops.grid_(z, self.x0, self.radius())
        return z


class Bisection(Decision):
    """Starts at noise that fools, and halves the way between what fools and the clean image."""

    phase: Tensor = state(dtype=torch.int64)
    edge: Tensor = state("image")  # fools, once START is over
    low: Tensor = state()  # share of the way to the edge that does not fool
    high: Tensor = state(fill=1)  # share that does

    @abstractmethod
    def tolerance(self) -> Tensor:
        """[n] share of the way at which halving ends."""

    def begin(self) -> None:
        """x <- uniform noise."""
        self.x.copy_(self.draw_image(self.t))

    def between(self, share: Tensor) -> Tensor:
        """[n, C, H, W] at this share [n] of the way from the clean image to the edge."""
        return self.x0 + wide(share) * (self.edge - self.x0)

    def halve(self, hit: Tensor) -> Tensor:
        """Take in a look of rows in START or BISECT; [n] bool: rows whose edge now lies at the boundary."""
        halving, found = self.phase == BISECT, (self.phase == START) & hit
        middle = self._middle()
        self.high.copy_(torch.where(halving & hit, middle, self.high))
        self.low.copy_(torch.where(halving & ~hit, middle, self.low))
        ops.keep_(self.edge, self.x, found)
        self.phase.copy_(torch.where(found, BISECT, self.phase))
        middle = self._middle()
        over = (self.high - self.low <= self.tolerance()) | (middle <= self.low) | (middle >= self.high)
        over &= halving
        ops.keep_(self.edge, self.shown(self.between(self.high)), over)
        return over

    def search(self, others: Tensor) -> None:
        """x <- more noise in START, the middle of the way in BISECT, else this [n, C, H, W]."""
        x = torch.where(wide(self.phase == BISECT), self.between(self._middle()), others)
        self.x.copy_(torch.where(wide(self.phase == START), self.draw_image(self.t + 1), x))

    def _middle(self) -> Tensor:
        return (self.low + self.high) / 2
