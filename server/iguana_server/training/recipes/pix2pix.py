"""pix2pix on OpenMoji: Isola et al. 2017, arXiv:1611.07004."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.training import openmoji as files
from iguana_server.training import ranks, sheet
from iguana_server.training.game import Data, Game, Move, Nets, Player
from iguana_server.training.losses import NonSaturating
from iguana_server.training.settings import setting
from iguana_server.translators import pix2pix as model
from iguana_server.translators.patchgan import NLayerDiscriminator

SHOWN, TRIPLETS = 32, 4  # test pictures on a sheet, in a row of it
PICTURES = 100  # a pass


@dataclass(frozen=True, kw_only=True)
class Pix2Pix(Game):
    """Translate an outline to the coloured picture it is of, from pairs: near it in L1, and not to be told from it."""

    name = "pix2pix"
    paper = "Isola et al. 2017, arXiv:1611.07004"
    exported = ("generator",)
    about = (
        "A generator that colours outlines of pictograms, 64 x 64, grey to RGB on white: a U-Net with BatchNorm;"
        " pixels in [-1, 1]. The colours of what it has never seen are a guess: an outline does not tell them."
    )
    figures = (
        "Of pictures held out, by their first code points, so that no variant of them was trained on. L1: mean"
        " distance of pixels in [0, 1] to the coloured picture; outline L1: that of the outline itself."
    )
    data_folder = "FOLDER_OF_openmoji.npz"
    data_name = (
        "OpenMoji 17.0.0 (npm package openmoji), 2195 pictures without flags and skin tones, rendered by"
        " examples/openmoji.py; all emojis designed by OpenMoji, the open-source emoji and icon project"
    )
    data_licence = files.LICENCE
    licence = "CC BY-SA 4.0, as their data: what is made of them is shared alike"

    epochs: int = setting(12, low=1, high=10_000, doc="times that figures are taken and the state is saved")
    steps: int = setting(1000, low=1, high=1_000_000, doc="steps of an epoch")
    batch: int = setting(8, low=1, high=65_536, doc="pairs of a step")
    near: float = setting(100.0, low=0, high=10_000, doc="weight of the L1 distance (lambda)")
    shift: int = setting(4, low=0, high=32, doc="pixels that a pair is moved, each way, in both directions")
    width: int = setting(model.WIDTH, low=1, high=1024, doc="channels of the generator's first convolution")
    downs: int = setting(model.DOWNS, low=5, high=6, doc="halvings of the U-Net")
    critic_width: int = setting(16, low=1, high=1024, doc="channels of the discriminator's first convolution")
    layers: int = setting(2, low=1, high=4, doc="of the discriminator: 2 see patches of 34 x 34 pixels")

    def nets(self) -> dict[str, nn.Module]:
        """Build the generator, and the discriminator of what went in beside what came out."""
        return {
            "generator": model.net(self.width, self.downs),
            "critic": NLayerDiscriminator(4, self.critic_width, self.layers, "batch"),
        }

    def players(self) -> dict[str, Player]:
        """Two players, each of one network."""
        return {
            "critic": Player(("critic",), self.critic_rate),
            "generator": Player(("generator",), self.rate),
        }

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Read the pairs."""
        return files.load(folder)

    def digest(self, folder: Path) -> str:
        """Return the pictures' sha256."""
        return files.digest(folder)

    def moves(self, nets: Nets, data: Data, rng: torch.Generator) -> Iterator[Move]:
        """Yield the discriminator's loss, halved as in the paper, then the generator's."""
        rows = torch.randint(len(data["outline"]), (self.batch,), generator=rng)
        pair = torch.cat([data["outline"][rows], data["colour"][rows]], 1)
        moved = ranks.own(_moved(_pixels(pair), self.shift, rng))
        outline, colour = moved[:, :1], moved[:, 1:]
        critic, loss = nets["critic"], NonSaturating()
        fake = nets["generator"](outline)
        answers = critic(torch.cat([outline, colour], 1)), critic(torch.cat([outline, fake.detach()], 1))
        beliefs = {"D(real)": answers[0].sigmoid().mean(), "D(fake)": answers[1].sigmoid().mean()}
        yield Move("critic", loss.critic(*answers) / 2, beliefs)
        far = functional.l1_loss(fake, colour)
        fooled = loss.generator(critic(torch.cat([outline, fake], 1)))
        yield Move(
            "generator", fooled + self.near * far, {"fooled": fooled.detach(), "L1 seen": far.detach() / 2}
        )

    def view(self, nets: Nets, data: Data) -> dict[str, Tensor]:
        """Return a sheet of pictures held out: outline, what came out, the coloured picture."""
        held = len(data["test outline"])
        rows = torch.linspace(0, held - 1, min(SHOWN, held)).long()  # apart: neighbours are much alike
        outline, colour = (_pixels(data[f"test {key}"][rows]) for key in ("outline", "colour"))
        triplets = torch.stack([outline.expand(-1, 3, -1, -1), nets["generator"](outline), colour], 1)
        return {"test": sheet.grid(triplets.flatten(0, 1).add(1).div(2), 3 * TRIPLETS)}

    def judge(self, nets: Nets, data: Data) -> dict[str, float]:
        """Return the distances of pictures held out."""
        outline, colour = (_pixels(data[f"test {key}"]) for key in ("outline", "colour"))
        made = torch.cat([nets["generator"](part) for part in torch.split(outline, PICTURES)])
        return {
            "test L1": float(functional.l1_loss(made, colour) / 2),
            "outline L1": float(functional.l1_loss(outline.expand_as(colour), colour) / 2),
        }


def _pixels(images: Tensor) -> Tensor:
    """Bring bytes to pixels in [-1, 1]."""
    return images.float() / 127.5 - 1


def _moved(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Flip each picture left to right at random and shift it by up to `shift` pixels, on white: [n, C, H, W]."""
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=rng) < 0.5
    x = functional.pad(torch.where(flip, x.flip(3), x), [shift] * 4, value=1.0)
    top, left = torch.randint(2 * shift + 1, (2, n, 1, 1), generator=rng)
    rows = top + torch.arange(height).view(-1, 1)  # [n, H, 1]
    columns = left + torch.arange(width)  # [n, 1, W]
    return x.movedim(1, 3)[torch.arange(n).view(-1, 1, 1), rows, columns].movedim(3, 1)
