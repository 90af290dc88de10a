"""Small sets of clothes-like pictures, and generators whose ways are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iguana_server.evaluation.synthetic import write_idx
from iguana_server.generators.base import Generator, Spec
from iguana_server.models.fashion_mnist import CLASSES
from iguana_server.synthesis import catalog


def clothes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bars, of a width and a brightness by class, with noise: uint8 [n, 28, 28], and labels 0, 1, .. in turn."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    column = torch.arange(28)
    inside = (column < 2 + 2 * labels[:, None]).float()[:, None, :].expand(n, 28, 28)
    grey = inside * (100 + 15 * labels[:, None, None]) + 20 * torch.randn(n, 28, 28, generator=rng)
    return grey.clamp(0, 255).byte(), labels


def folder(path: Path, train: int = 150, test: int = 120) -> Path:
    """Fashion-MNIST's four files, of other pictures."""
    path.mkdir()
    for split, n, seed in (("train", train, 1), ("t10k", test, 2)):
        pixels, labels = clothes(n, seed)
        write_idx(pixels, path / f"{split}-images-idx3-ubyte.gz")
        write_idx(labels, path / f"{split}-labels-idx1-ubyte.gz")
    return path


class Copier(nn.Module):
    """Gives training pictures of the class away, whichever the code's first number points at."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.register_buffer("of_class", torch.stack([pixels[k::10][: len(pixels) // 10] for k in range(10)]))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        known = self.get_buffer("of_class")
        place = (z[:, 0].abs() * 1e4).nan_to_num().long() % known.shape[1]
        found: Tensor = known[label, place].unsqueeze(1).float() / 127.5 - 1
        return found + 0 * z.sum(1).view(-1, 1, 1, 1)


class Bars(nn.Module):
    """Draws from the very distribution, knowing no picture: noise of its own on the class's bar."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", clothes(10, 0)[0].ne(0).float())

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        column = torch.arange(28)
        inside = (column < 2 + 2 * label[:, None]).float()[:, None, :]
        grey = inside * (100 + 15 * label[:, None, None]) + 20 * z.view(-1, 28, 28)
        return grey.clamp(0, 255).unsqueeze(1) / 127.5 - 1


class Knows(nn.Module):
    """A discriminator that has learnt the training pictures by heart."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", pixels.flatten(1).float() / 127.5 - 1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return -torch.cdist(x.flatten(1), self.get_buffer("known")).amin(1)


def generator(
    net: nn.Module, *, latent: int = 784, classes: tuple[str, ...] = CLASSES, critic: nn.Module | None = None
) -> Generator:
    """Of 28 x 28 grey pictures."""
    spec = Spec(
        name="tried",
        latent=latent,
        classes=classes,
        shape=(1, 28, 28),
        bucket=16,
        max_batch=16,
        description="",
        licence="MIT",
        source="",
    )
    return Generator(spec, net, sha256="0" * 64, device=torch.device("cpu"), critic=critic)


def serve(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Generator]) -> None:
    """Make `tried` a built-in generator."""
    monkeypatch.setattr(catalog, "available", lambda _: {"tried": lambda _: make()})


class Anything(nn.Module):
    """Pictures of no class: the code itself."""

    def forward(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 28, 28).tanh()
