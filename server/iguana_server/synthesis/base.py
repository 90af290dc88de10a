"""A frozen network that maps rows to pictures, each row by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models.base import NAME


class Network(ABC):
    """Eval mode, no weight gradients, on one device.

    A row is one entry of each of its columns (tensors with rows on axis 0). `sizes` are the rows that a STRICT pass
    may have, ascending from the bucket: in all of them a row of the shapes of `example` has the same bits. Others
    than the bucket are for the probe to add. `sha256` is that of the weights file; `net` is taken over, not copied.
    """

    invertible: ClassVar[bool] = False  # gradients in the first column are wanted

    def __init__(
        self, name: str, bucket: int, max_batch: int, net: nn.Module, *, sha256: str, device: torch.device
    ) -> None:
        self.name, self.bucket, self.max_batch = name, bucket, max_batch
        self.sha256, self.device = sha256, device
        self.sizes: tuple[int, ...] = (bucket,)
        self.net = net.eval().requires_grad_(False).to(device)

    @abstractmethod
    def __call__(self, *columns: Tensor) -> Tensor:
        """Map rows to pictures, float32 [n, C, H, W] in [0, 1]; a critic, to logits [n]."""

    @abstractmethod
    def example(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw columns of n rows that are like a caller's."""


def check_common(name: str, bucket: int, max_batch: int) -> list[str]:
    """Return the faults of what every network declares."""
    faults = {
        f"name: want {NAME.pattern}, got {name!r}": not NAME.fullmatch(name),
        f"bucket: want 1 row or more, got {bucket}": bucket < 1,
        f"max_batch: want the bucket's {bucket} rows or more, got {max_batch}": max_batch < bucket,
    }
    return [fault for fault, wrong in faults.items() if wrong]


def refuse(faults: list[str]) -> None:
    """Raise ModelRefused where there are faults."""
    if faults:
        raise ModelRefused("; ".join(faults))


Loader: TypeAlias = Callable[[torch.device], Network]
