"""CycleGAN on two classes of Fashion-MNIST: Zhu et al. 2017, arXiv:1703.10593."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.models.fashion_mnist import CLASSES
from iguana_server.training import fashion_mnist as files
from iguana_server.training import quality, ranks, sheet
from iguana_server.training.game import Data, Game, Move, Nets, Player
from iguana_server.training.losses import LSGAN
from iguana_server.training.pool import Pool
from iguana_server.training.settings import choice, setting
from iguana_server.translators import cyclegan as model
from iguana_server.translators.patchgan import NLayerDiscriminator

DIRECTIONS = {"a2b": ("a", "b"), "b2a": ("b", "a")}
SHOWN = 8  # test pictures of a class on a sheet


@dataclass(frozen=True, kw_only=True)
class CycleGAN(Game):
    """Translate class A to B and B to A, without pairs: what has gone there and come back must be what it was."""

    name = "cyclegan"
    paper = "Zhu et al. 2017, arXiv:1703.10593"
    averaged = ("a2b", "b2a")
    exported = ("a2b", "b2a")
    about = (
        "Two generators that translate 28 x 28 grey pictures of clothes, of class A to B and of B to A, trained"
        " without pairs. Each is a ResNet with InstanceNorm: a 7x7 convolution, two 3x3 at stride 2, residual"
        " blocks at a quarter of the size, two transposed convolutions, a 7x7 convolution, tanh; pixels in [-1, 1]."
    )
    figures = (
        "Of all test pictures of the class that goes in. Target rate: share that fashion-mnist-cnn sees as the"
        " other class; real rate: share of that class's own pictures that it sees so. Cycle L1: mean distance of"
        " pixels in [0, 1] to what has gone there and come back. FID: Frechet distance to the test pictures of the"
        " other class in the 864 features of that classifier; not to be compared with distances in other features."
    )
    data_folder = "/usr/share/datasets/fashion-mnist"
    data_name = "Fashion-MNIST, Xiao et al. 2017, arXiv:1708.07747"
    data_licence = files.LICENCE

    a: str = choice("Sneaker", CLASSES, doc="class A")
    b: str = choice("Ankle boot", CLASSES, doc="class B")
    epochs: int = setting(8, low=1, high=10_000, doc="times that figures are taken and the state is saved")
    steps: int = setting(300, low=1, high=1_000_000, doc="steps of an epoch")
    batch: int = setting(16, low=1, high=65_536, doc="pictures of each class in a step")
    cycle: float = setting(10.0, low=0, high=1000, doc="weight of the cycles' L1 (lambda)")
    identity: float = setting(
        0.5, low=0, high=100, doc="weight of the L1 of what is of the class already, in units of the cycles'"
    )
    pool: int = setting(50, low=0, high=100_000, doc="generated pictures kept for each discriminator")
    width: int = setting(model.WIDTH, low=1, high=1024, doc="channels of the generators' first convolution")
    blocks: int = setting(model.BLOCKS, low=1, high=100, doc="residual blocks of a generator")
    critic_width: int = setting(32, low=1, high=1024, doc="channels of the discriminators' first convolution")
    layers: int = setting(2, low=1, high=6, doc="of a discriminator: 2 see patches of 34 x 34 pixels")

    def faults(self) -> list[tuple[str, str]]:
        """Return also a pair that is none."""
        return super().faults() + (
            [("b", f"want another class than a, got {self.b}")] if self.a == self.b else []
        )

    def nets(self) -> dict[str, nn.Module]:
        """Build both generators, their discriminators and the pools."""
        nets: dict[str, nn.Module] = {}
        for there in DIRECTIONS:
            nets[there] = model.net(self.width, self.blocks).apply(_draw)
            nets[f"{there} critic"] = NLayerDiscriminator(
                1, self.critic_width, self.layers, "instance"
            ).apply(_draw)
            nets[f"{there} pool"] = Pool(self.pool, (1, 28, 28))
        return nets

    def players(self) -> dict[str, Player]:
        """Two players: the generators, the discriminators."""
        return {
            "generators": Player(tuple(DIRECTIONS), self.rate),
            "critics": Player(tuple(f"{there} critic" for there in DIRECTIONS), self.critic_rate),
        }

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Read both classes, and what the judge makes of their test pictures."""
        data = {}
        for split, name in (("train", ""), ("t10k", "test ")):
            images, labels = files.load(folder, "train" if split == "train" else "t10k")
            for side, wanted in (("a", self.a), ("b", self.b)):
                data[f"{name}{side}"] = images[labels == CLASSES.index(wanted)]
        judge = quality.judge()
        for side in ("a", "b"):
            classes, features = quality.looks(judge, _passes(data[f"test {side}"].float() / 255))
            data |= {
                f"features {side}": features,
                f"rate {side}": (classes == self._index(side)).float().mean(),
            }
        return data

    def digest(self, folder: Path) -> str:
        """Return the four files' sha256."""
        return files.digest(folder)

    def moves(self, nets: Nets, data: Data, rng: torch.Generator) -> Iterator[Move]:
        """Yield the generators' loss, then the discriminators', on pictures out of the pools."""
        real = {side: self._draw(data[side], rng) for side in ("a", "b")}
        fake, same = {}, {}
        for there, (source, target) in DIRECTIONS.items():  # in one pass: no row sees another
            fake[there], same[there] = nets[there](torch.cat([real[source], real[target]])).chunk(2)
        loss = real["a"].new_zeros(())
        figures: dict[str, Tensor] = {}
        for (there, (source, target)), back in zip(DIRECTIONS.items(), reversed(DIRECTIONS), strict=True):
            fooled = (nets[f"{there} critic"](fake[there]) - 1).square().mean()
            cycle = functional.l1_loss(nets[back](fake[there]), real[source])
            kept = functional.l1_loss(same[there], real[target])
            loss = loss + fooled + self.cycle * (cycle + self.identity * kept)
            figures |= {f"{there} fooled": fooled.detach(), f"{there} cycle": cycle.detach()}
        yield Move("generators", loss, figures)
        loss = real["a"].new_zeros(())
        for there, (_, target) in DIRECTIONS.items():
            critic, pool = nets[f"{there} critic"], cast(Pool, nets[f"{there} pool"])
            seen = pool.exchange(fake[there].detach(), rng)
            loss = loss + LSGAN().critic(critic(real[target]), critic(seen))
        yield Move("critics", loss)

    def view(self, nets: Nets, data: Data) -> dict[str, Tensor]:
        """Return a sheet a direction: what went in, what came out, what came back; one under another."""
        sheets = {}
        for (there, (source, _)), back in zip(DIRECTIONS.items(), reversed(DIRECTIONS), strict=True):
            x = _pixels(data[f"test {source}"][:SHOWN])
            y = nets[there](x)
            sheets[there] = sheet.grid(torch.cat([x, y, nets[back](y)]).add(1).div(2), SHOWN)
        return sheets

    def judge(self, nets: Nets, data: Data) -> dict[str, float]:
        """Return how many are seen as the other class, how far a cycle leads away, the Frechet distance."""
        judge = quality.judge()
        figures: dict[str, float] = {}
        for (there, (source, target)), back in zip(DIRECTIONS.items(), reversed(DIRECTIONS), strict=True):
            x = data[f"test {source}"].float() / 255
            y = torch.cat([nets[there](part * 2 - 1) for part in _passes(x)])
            again = torch.cat([nets[back](part) for part in _passes(y)])
            classes, features = quality.looks(judge, _passes(y.add(1).div(2)))
            figures |= {
                f"{there} target rate": float((classes == self._index(target)).float().mean()),
                f"{there} real rate": float(data[f"rate {target}"]),
                f"{there} cycle L1": float(functional.l1_loss(again.add(1).div(2), x)),
                f"{there} FID": quality.frechet(features, data[f"features {target}"]),
            }
        return figures

    def _index(self, side: str) -> int:
        return CLASSES.index(self.a if side == "a" else self.b)

    def _draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        rows = ranks.own(torch.randint(len(images), (self.batch,), generator=rng))
        return _pixels(images[rows])


def _pixels(images: Tensor) -> Tensor:
    """Bring bytes to pixels in [-1, 1]."""
    return images.float() / 127.5 - 1


def _passes(x: Tensor) -> Iterator[Tensor]:
    return iter(torch.split(x, quality.PICTURES))


def _draw(layer: nn.Module) -> None:
    """Draw a convolution's weights as the paper does: normal, of deviation 0.02; biases zero."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
