"""Several processes that train one network, as torchrun starts them: gradients are averaged over gloo.

Each takes every n-th picture of a batch, so the batch, and with it the learning rate, stays the recipe's.
BatchNorm's statistics are of a process's own pictures; their running means are averaged at an epoch's end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes where torchrun has started some: WORLD_SIZE > 1."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """Processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; the first, 0, writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def add_up(tensors: Iterable[Tensor], share: float) -> None:
    """Replace tensors by the sum over all processes of theirs times their share, in place."""
    found = list(tensors)
    if world() == 1 or not found:
        return
    flat = torch.cat([tensor.flatten() for tensor in found]).mul_(share)
    dist.all_reduce(flat)
    for tensor, part in zip(found, torch.split(flat, [tensor.numel() for tensor in found]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def own(rows: Tensor) -> Tensor:
    """Return this process's share of a batch: every n-th row."""
    return rows[rank() :: world()]
