"""What the minimum-norm attacks share: the smallest change that fools is kept, not the surest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import NEVER, Attack, to_grid_l2
from iguana_server.attacks.losses import lead

L2, LINF = 0, 1


class MinimumNorm(Attack):
    """An attack without a ball: candidates that reach the goal are better the nearer they are to the image."""

    norm = "none"
    default_stop = NEVER
    evades = False

    def linf(self) -> Tensor:
        """[n] bool: rows whose distances are Linf; those of the others are L2."""
        return torch.zeros_like(self.done)

    def distance(self, z: Tensor) -> Tensor:
        """[n] of z from the image, in the row's norm."""
        return torch.where(self.linf(), (z - self.x0).abs().amax((1, 2, 3)), ops.l2_distance(z, self.x0))

    def gap(self, logits: Tensor) -> Tensor:
        """[n] by how many logits the goal is reached (above 0) or missed."""
        margin = lead(logits, self.label.clamp_min(0))
        return torch.where(self.targeted, -margin, margin)

    def rival(self, rank: Tensor) -> Tensor:
        """[n] the class to head for: the one so likely in the clean image, from 0, but for the label's; or the target."""
        label = self.label.clamp_min(0)
        others = self.before.scatter(1, label[:, None], -math.inf)
        order = others.argsort(dim=1, descending=True, stable=True)
        return torch.where(self.targeted, label, order.gather(1, rank[:, None])[:, 0])

    def score(self, z: Tensor, loss: Tensor, margin: Tensor) -> Tensor:
        """Minus the distance; of candidates that do not reach the goal, the margin."""
        return torch.where(margin > 0, -self.distance(z), margin)

    def candidates(self) -> Tensor:
        """[n, C, H, W] the iterate, on the 8-bit grid if asked, and then no farther from the image."""
        if not self.on_grid:
            return self.x
        reached = self.distance(self.x)
        z = to_grid_l2(self.x, self.x0, reached)
        nearest = self.x.clone()
        ops.grid_(nearest, self.x0, reached)
        ops.keep_(z, nearest, self.linf())
        return z


def spread(column: Tensor) -> Tensor:
    """[n] -> [n, 1, 1, 1] float32, to meet images."""
    return column.float().view(-1, 1, 1, 1)


def length(v: Tensor) -> Tensor:
    """[n] L2 norm of a row."""
    return ops.l2_distance(v, torch.zeros_like(v))


def total(v: Tensor) -> Tensor:
    """[n] sum of a row whose terms are not below 0, in an order that does not depend on the batch."""
    return length(v.double().sqrt().float()).square()


def dot(a: Tensor, b: Tensor) -> Tensor:
    """[n] scalar product of rows, likewise."""
    v = a * b
    return total(v.clamp_min(0)) - total(v.neg().clamp_min_(0))


def annealed(high: Tensor | float, low: Tensor | float, t: Tensor, steps: Tensor) -> Tensor:
    """[n] float64 from high at t = 0 to low at t = steps, along half a cosine."""
    share = (1 + torch.cos(math.pi * t.double() / steps)) / 2
    return low + (high - low) * share
