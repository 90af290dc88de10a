"""A game: networks that train against each other, and the losses that each of them descends in turn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from iguana_server.training.settings import Settings, setting

Nets = Mapping[str, nn.Module]
Data = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Player:
    """Who descends: the networks whose weights it moves, by Adam at this learning rate."""

    nets: tuple[str, ...]
    rate: float


@dataclass(frozen=True, slots=True)
class Move:
    """A loss for a player to descend, and what else is to be told of this moment."""

    player: str
    loss: Tensor  # []
    figures: Mapping[str, Tensor] = field(default_factory=dict)  # [] each


@dataclass(frozen=True, kw_only=True)
class Game(Settings):
    """What all recipes of adversarial training have.

    A step is all that `moves` yields; its random numbers depend on (seed, step) alone. What must outlast a cut
    besides weights (a pool of pictures, BEGAN's k) is a buffer of a module among the networks.
    """

    averaged: ClassVar[tuple[str, ...]] = ("generator",)  # networks that are judged and stored as averages
    exported: ClassVar[tuple[str, ...]]  # networks in the weights' file, each under its name and a dot
    about: ClassVar[str]  # what the weights are, for the card
    figures: ClassVar[str]  # what the figures are, for the card
    data_name: ClassVar[str]
    data_folder: ClassVar[str]  # where a package puts the data, for the card
    data_licence: ClassVar[str]
    licence: ClassVar[str] = "Apache-2.0, as the rest of this repository"  # of the weights

    epochs: int = setting(20, low=1, high=10_000, doc="times that figures are taken and the state is saved")
    steps: int = setting(500, low=1, high=1_000_000, doc="steps of an epoch")
    batch: int = setting(64, low=1, high=65_536, doc="pictures of a step")
    rate: float = setting(2e-4, low=0, high=1, doc="learning rate of generators (Adam)")
    critic_rate: float = setting(2e-4, low=0, high=1, doc="learning rate of discriminators")
    beta1: float = setting(0.5, low=0, high=0.999, doc="Adam's, for the mean of gradients")
    beta2: float = setting(0.999, low=0, high=0.99999, doc="Adam's, for the mean of their squares")
    constant: float = setting(
        0.5, low=0, high=1, doc="share of the steps after which the rates fall linearly to zero"
    )
    average: float = setting(0.995, low=0, high=0.99999, doc="decay of the running average of weights")

    @abstractmethod
    def nets(self) -> dict[str, nn.Module]:
        """Build the networks; first weights are of torch's global generator, which is seeded."""

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """Return who moves which of them."""

    @abstractmethod
    def load(self, folder: Path) -> dict[str, Tensor]:
        """Read what is trained on and judged by; raises FileNotFoundError or ValueError."""

    @abstractmethod
    def digest(self, folder: Path) -> str:
        """Return a sha256 that says which data these are."""

    @abstractmethod
    def moves(self, nets: Nets, data: Data, rng: torch.Generator) -> Iterator[Move]:
        """Yield the losses of one step; the caller descends each before it asks for the next.

        `nets` are in training mode. Every process draws the same from `rng`, and takes its own share
        (`ranks.own`) of each batch.
        """

    @abstractmethod
    def view(self, nets: Nets, data: Data) -> dict[str, Tensor]:
        """Return pictures by name, pixels [C, H, W] in [0, 1], of networks in eval mode."""

    @abstractmethod
    def judge(self, nets: Nets, data: Data) -> dict[str, float]:
        """Return figures of networks in eval mode, that tell how good they are."""

    def pace(self, progress: float) -> float:
        """Return the share of the learning rates at `progress`, the share of the steps done, in [0, 1]."""
        return 1.0 if progress <= self.constant else (1 - progress) / (1 - self.constant)
