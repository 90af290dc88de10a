"""The model that the engine's tests share: small, real, quick."""

import torch
from torch import nn

from iguana_server.models.base import Model, Spec

SHAPE, CLASSES = (3, 12, 12), 12
CPU = torch.device("cpu")


def toy(
    *, bucket: int = 8, max_batch: int = 32, name: str = "toy", seed: int = 0, device: torch.device = CPU
) -> Model:
    """A small random convolutional classifier with a hilly loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 5 * 5, CLASSES),
        )
        with torch.no_grad():
            next(net[-1].parameters()).mul_(3)  # surer than a fresh net: its softmax is not flat
    spec = Spec(
        name=name,
        shape=SHAPE,
        classes=tuple("abcdefghijkl"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        resize=12,
        bucket=bucket,
        max_batch=max_batch,
        description="a toy",
        licence="none",
        source="this file",
    )
    return Model(spec, net, sha256="0" * 64, device=device)


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    """[n, 3, 12, 12] of 8-bit pixels, in the model's layout."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, *SHAPE), generator=generator)
    return (pixels / 255).contiguous(memory_format=torch.channels_last)
