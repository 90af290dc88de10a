"""The conditional GAN on Fashion-MNIST: Goodfellow et al. 2014, arXiv:1406.2661."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from iguana_server.generators import fashion_mnist as model
from iguana_server.models.fashion_mnist import CLASSES
from iguana_server.training import fashion_mnist as files
from iguana_server.training import quality, ranks, sheet
from iguana_server.training.autoencoder import Autoencoder
from iguana_server.training.game import Data, Game, Move, Nets, Player
from iguana_server.training.losses import LOSSES, Loss
from iguana_server.training.settings import choice, setting, switch
from iguana_server.training.virtual import Referenced, VirtualNorm

JUDGED = 5000  # generated pictures that figures are of
REFERENCE = 40  # rows of virtual batch norm's reference batch: four of each class


@dataclass(frozen=True, kw_only=True)
class GAN(Game):
    """A generator against a discriminator, both told the class."""

    name = "gan"
    paper = "Goodfellow et al. 2014, arXiv:1406.2661"
    exported = ("generator", "critic")
    about = (
        "A conditional generator of 28 x 28 grey pictures of clothes, and the discriminator it was trained against."
        " Generator: codes of 100 standard normal numbers and a class to pixels in [-1, 1]; a linear layer and two"
        " transposed convolutions, 4x4 at stride 2, each with class-conditional BatchNorm, and a 3x3 convolution."
        " Discriminator: three convolutions with BatchNorm, and a linear layer with projection of the class; one"
        " logit, above 0 for real."
    )
    figures = (
        "FID: Frechet distance between 5,000 generated pictures, as many of each class, and the 10,000 test pictures"
        " in the 864 features of fashion-mnist-cnn; not to be compared with distances in other features. Class"
        " accuracy: share of these pictures in which that classifier sees the class that was asked for."
    )
    data_folder = "/usr/share/datasets/fashion-mnist"
    data_name = "Fashion-MNIST, Xiao et al. 2017, arXiv:1708.07747"
    data_licence = files.LICENCE

    epochs: int = setting(12, low=1, high=10_000, doc="times that figures are taken and the state is saved")
    steps: int = setting(600, low=1, high=1_000_000, doc="steps of an epoch")
    rate: float = setting(1e-3, low=0, high=1, doc="learning rate of the generator (Adam)")
    loss: str = choice("non-saturating", LOSSES, doc="what both descend")
    critic_steps: int = setting(
        1, low=1, high=100, doc="moves of the discriminator for each of the generator"
    )
    smoothing: float = setting(1.0, low=0.5, high=1, doc="what the discriminator is taught of real pictures")
    penalty: float = setting(10.0, low=0, high=1000, doc="weight of the gradient's penalty (wgan-gp, dragan)")
    clip: float = setting(0.01, low=1e-6, high=10, doc="largest weight of the discriminator (wgan)")
    spectral: bool = switch(doc="spectral norm in the discriminator (Miyato et al. 2018), no BatchNorm")
    virtual: bool = switch(doc="virtual batch norm in the generator (Salimans et al. 2016)")
    width: int = setting(model.WIDTH, low=1, high=1024, doc="channels at full size, of both")

    def faults(self) -> list[tuple[str, str]]:
        """Return also what does not go together."""
        found = super().faults()
        if self.smoothing < 1 and self.loss in LOSSES and not LOSSES[self.loss].labelled:
            found.append(("smoothing", f"want 1 for {self.loss}, which has no targets, got {self.smoothing}"))
        if self.spectral and self.loss in LOSSES and LOSSES[self.loss].autoencodes:
            found.append(("spectral", f"want it off for {self.loss}, whose critic is an autoencoder, got on"))
        return found

    def nets(self) -> dict[str, nn.Module]:
        """Build both, and the loss, which may have a state."""
        loss = LOSSES[self.loss](self.smoothing, self.penalty, self.clip)
        return {"generator": self._generator(), "critic": self._critic(loss), "loss": loss}

    def _generator(self) -> nn.Module:
        if not self.virtual:
            return model.Net(self.width)
        net = model.Net(self.width, lambda _: VirtualNorm(REFERENCE))
        return Referenced(net, torch.randn(REFERENCE, model.LATENT), torch.arange(REFERENCE) % len(CLASSES))

    def _critic(self, loss: Loss) -> nn.Module:
        if loss.autoencodes:
            return Autoencoder(self.width)
        if self.spectral:
            return model.Critic(self.width, lambda _: nn.Identity()).apply(_spectral)
        return model.Critic(self.width, partial(nn.GroupNorm, 1) if loss.penalised else nn.BatchNorm2d)

    def players(self) -> dict[str, Player]:
        """Two players, each of one network."""
        return {
            "critic": Player(("critic",), self.critic_rate),
            "generator": Player(("generator",), self.rate),
        }

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Read the pictures, and what the judge makes of the test set's."""
        images, labels = files.load(folder, "train")
        test, _ = files.load(folder, "t10k")
        passes = (x.float() / 255 for x in torch.split(test, quality.PICTURES))
        _, features = quality.looks(quality.judge(), passes)
        return {"images": images, "labels": labels, "features": features}

    def digest(self, folder: Path) -> str:
        """Return the four files' sha256."""
        return files.digest(folder)

    def moves(self, nets: Nets, data: Data, rng: torch.Generator) -> Iterator[Move]:
        """Yield the critic's losses, each on pictures of its own, and the generator's on the last of them.

        Generated pictures are of the classes of the real ones. The generator's loss looks at the pictures that
        the critic has just learnt from.
        """
        generator, critic, loss = nets["generator"], nets["critic"], cast(Loss, nets["loss"])
        for turn in range(self.critic_steps):
            rows = ranks.own(torch.randint(len(data["images"]), (self.batch,), generator=rng))
            real, label = data["images"][rows].float() / 127.5 - 1, data["labels"][rows]
            z = ranks.own(torch.randn(self.batch, model.LATENT, generator=rng))
            with torch.set_grad_enabled(turn == self.critic_steps - 1):
                fake = generator(z, label)
            score = _Score(critic, label)
            answers = score(real), score(fake.detach())
            beliefs = {
                "D(real)": loss.belief(answers[0]).mean(),
                "D(fake)": loss.belief(answers[1]).mean(),
            }
            extra = loss.penalty(score, real, fake.detach(), rng)
            yield Move("critic", loss.critic(*answers) + extra, beliefs)
            loss.settle(critic)
        yield Move("generator", loss.generator(score(fake)))

    def view(self, nets: Nets, data: Data) -> dict[str, Tensor]:
        """Return a sheet of fixed codes: a row a class."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(100, model.LATENT, generator=rng)
        label = torch.arange(100) // 10
        return {"samples": sheet.grid(nets["generator"](z, label).add(1).div(2), 10)}

    def judge(self, nets: Nets, data: Data) -> dict[str, float]:
        """Return the Frechet distance to the test pictures and the share whose class the classifier sees."""
        rng = torch.Generator().manual_seed(1)
        label = torch.arange(JUDGED) % 10
        z = torch.randn(JUDGED, model.LATENT, generator=rng)
        passes = (
            nets["generator"](z, k).add(1).div(2)
            for z, k in zip(
                torch.split(z, quality.PICTURES), torch.split(label, quality.PICTURES), strict=True
            )
        )
        classes, features = quality.looks(quality.judge(), passes)
        return {
            "FID": quality.frechet(features, data["features"]),
            "class accuracy": float((classes == label).float().mean()),
        }


@dataclass(frozen=True, slots=True)
class _Score:
    """A critic of pictures of these classes."""

    critic: nn.Module
    label: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        answers: Tensor = self.critic(x, self.label)
        return answers


def _spectral(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        spectral_norm(layer)
