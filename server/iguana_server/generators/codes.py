"""Latent codes from seeds: a function of the seed and of nothing else, the same on every device and in any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iguana_server import ops

_Z, _TRUNCATED, _LABEL = 0, 1, 2  # draws of a seed


def from_seeds(seeds: Sequence[int], latent: int, *, truncation: float = 0.0, restart: int = 0) -> Tensor:
    """Draw standard normal codes [n, latent], one a seed (a uint64), by Philox; `restart` numbers a seed's tries.

    With a truncation above 0, numbers beyond it are drawn anew from the normal distribution within
    [-truncation, truncation] (Brock et al. 2019, arXiv:1809.11096, 3.1), by its inverse in one draw; the others stay
    as they are.
    """
    z = ops.philox_normal(*_counters(seeds, restart, _Z), latent)
    if not truncation:
        return z
    u = ops.philox_uniform(*_counters(seeds, restart, _TRUNCATED), latent).double()
    share = math.erf(truncation / math.sqrt(2))  # of the normal distribution within the limits
    again = torch.special.ndtri(0.5 + share * (u - 0.5)).clamp(-truncation, truncation)
    return torch.where(z.abs() <= truncation, z, again.float())


def labels_of(seeds: Sequence[int], classes: int) -> Tensor:
    """Draw a class [n] for each seed, uniformly."""
    u = ops.philox_uniform(*_counters(seeds, 0, _LABEL), 1)[:, 0]
    return (u.double() * classes).long()


def _counters(seeds: Sequence[int], restart: int, draw: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return seed, sample, restart and draw number of each row: it matters not where in a request a seed stands."""
    bits = [seed - 2**64 if seed >= 2**63 else seed for seed in seeds]
    zeros = torch.zeros(len(bits), dtype=torch.int64)
    return torch.tensor(bits, dtype=torch.int64), zeros, zeros + restart, zeros + draw
