"""Super-resolution on a folder of photos: SRVGGNetCompact of Wang et al. 2021, arXiv:2107.10833.

What comes out is served by a manifest beside it (`iguana_server.networks`), here of the defaults:

    kind = "translator"
    name = "my-superres"
    weights = "my-superres.safetensors"
    factory = "iguana_server.translators.compact:x2"   # --scale 4: x4; another width or depth: see below
    channels = [3, 3]
    scale = 2                                          # --scale
    multiple = 1
    span = [0, 1]
    side = 192
    overlap = 6                                        # --depth + 2: with it tiles are as the whole picture
    bucket = 1
    max_batch = 1
    description = "..."
    licence = "..."
    source = "..."

For another width or depth, a factory is a function of your own without arguments that returns
`iguana_server.translators.compact.trained(scale, width, depth)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.metrics.resize import clean
from iguana_server.training import photos, ranks, sheet
from iguana_server.training.game import Data, Game, Move, Nets, Player
from iguana_server.training.losses import LOSSES
from iguana_server.training.settings import choice, setting
from iguana_server.translators import compact as model
from iguana_server.translators.patchgan import NLayerDiscriminator

JUDGED, SHOWN = 64, 8  # crops held out that figures are of, that a sheet shows
ROW = 2  # of these, in a row of it
PASS = 16  # crops
CRITICS = ("non-saturating", "minimax", "lsgan", "hinge")  # losses that ask for no more than answers


@dataclass(frozen=True, kw_only=True)
class SuperRes(Game):
    """Enlarge photos that were shrunk: near what they were in L1 and, if asked for, not to be told from it.

    With `--adversarial` a PatchGAN critic judges patches, as SRGAN's (Ledig et al. 2017, arXiv:1609.04802) and
    ESRGAN's (Wang et al. 2018, arXiv:1809.00219) judges pictures; their perceptual term, a distance in VGG's features,
    is left out: no such weights are at hand. Photos are shrunk by antialiased bicubic and not harmed further, so the
    network learns to undo this shrinking, not noise or JPEG.
    """

    name = "superres"
    paper = "Wang et al. 2021, arXiv:2107.10833"
    exported = ("generator",)
    about = (
        "A network that enlarges RGB pictures, pixels in [0, 1]: 3x3 convolutions with PReLU at the size of what goes"
        " in, then pixel shuffle, added to nearest-neighbour enlargement (SRVGGNetCompact). Served by a manifest, with"
        " a factory of iguana_server.translators.compact."
    )
    figures = (
        f"Of {JUDGED} crops of photos held out, as many edge pixels left away on each side as the scale is. PSNR: of"
        " RGB pixels in [0, 1], in dB, by the mean square error over all crops; bicubic PSNR: that of bicubic"
        " enlargement."
    )
    data_folder = "FOLDER_OF_PHOTOS"
    data_name = "a folder of photos, one of ten held out"
    data_licence = "that of the photos"
    licence = "the trainer's to say, as the photos' licence allows"

    epochs: int = setting(10, low=1, high=10_000, doc="times that figures are taken and the state is saved")
    steps: int = setting(200, low=1, high=1_000_000, doc="steps of an epoch")
    batch: int = setting(8, low=1, high=65_536, doc="crops of a step")
    rate: float = setting(1e-3, low=0, high=1, doc="learning rate of the generator (Adam)")
    beta1: float = setting(0.9, low=0, high=0.999, doc="Adam's, for the mean of gradients")
    scale: int = setting(2, low=2, high=4, doc="pixels made of one, along a side: 2 or 4")
    crop: int = setting(64, low=32, high=4096, doc="side of a crop, in pixels before it is shrunk")
    width: int = setting(model.SMALL_WIDTH, low=1, high=1024, doc="channels of the convolutions")
    depth: int = setting(
        model.SMALL_LAYERS, low=0, high=100, doc="convolutions between the first and the last"
    )
    adversarial: float = setting(0.0, low=0, high=1000, doc="weight of the critic's word; 0: no critic")
    loss: str = choice("non-saturating", CRITICS, doc="what generator and critic descend")
    critic_width: int = setting(32, low=1, high=1024, doc="channels of the critic's first convolution")
    layers: int = setting(2, low=1, high=3, doc="of the critic: 2 see patches of 34 x 34 pixels")

    def faults(self) -> list[tuple[str, str]]:
        """Return also a scale between, and a crop that it does not divide."""
        found = super().faults()
        if self.scale == 3:
            found.append(("scale", f"want 2 or 4, got {self.scale}"))
        elif self.crop % self.scale:
            found.append(("crop", f"want a multiple of {self.scale}, got {self.crop}"))
        return found

    def nets(self) -> dict[str, nn.Module]:
        """Build the generator, and the critic where it has a word."""
        nets: dict[str, nn.Module] = {"generator": model.Compact(self.scale, self.width, self.depth)}
        if self.adversarial:
            nets["critic"] = NLayerDiscriminator(3, self.critic_width, self.layers, "instance")
        return nets

    def players(self) -> dict[str, Player]:
        """One player, or two."""
        players = {"generator": Player(("generator",), self.rate)}
        if self.adversarial:
            players["critic"] = Player(("critic",), self.critic_rate)
        return players

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Read the photos to train on, and cut the crops that figures are of out of the others."""
        train, test = photos.load(folder, self.crop)
        places = torch.rand(JUDGED, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        places[:, 0] = (torch.arange(JUDGED) % len(test) + 0.5) / len(test)  # each as often as others
        places[:, 3:] = 0
        return {
            **{f"photo {i}": x for i, x in enumerate(train)},
            "test": photos.crops(test, places, self.crop),
        }

    def digest(self, folder: Path) -> str:
        """Return the photos' sha256."""
        return photos.digest(folder)

    def moves(self, nets: Nets, data: Data, rng: torch.Generator) -> Iterator[Move]:
        """Yield the critic's loss where there is one, then the generator's, of random crops, turned at random."""
        train = [x for key, x in data.items() if key.startswith("photo ")]
        places = ranks.own(torch.rand(self.batch, 5, dtype=torch.float64, generator=rng))
        target = photos.crops(train, places, self.crop).float() / 255
        made = nets["generator"](self._shrunk(target))
        far = functional.l1_loss(made, target)
        if not self.adversarial:
            yield Move("generator", far)
            return
        critic, loss = nets["critic"], LOSSES[self.loss]()
        answers = critic(target * 2 - 1), critic(made.detach() * 2 - 1)
        beliefs = {"D(real)": loss.belief(answers[0]).mean(), "D(fake)": loss.belief(answers[1]).mean()}
        yield Move("critic", loss.critic(*answers), beliefs)
        fooled = loss.generator(critic(made * 2 - 1))
        yield Move(
            "generator", far + self.adversarial * fooled, {"L1": far.detach(), "fooled": fooled.detach()}
        )

    def view(self, nets: Nets, data: Data) -> dict[str, Tensor]:
        """Return a sheet of crops held out: shrunk, enlarged by bicubic, by the network, the crop itself."""
        target = data["test"][:SHOWN].float() / 255
        low = self._shrunk(target)
        shown = torch.stack(
            [
                low.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3),
                clean(low, (self.crop, self.crop)),
                nets["generator"](low).clamp(0, 1),
                target,
            ],
            1,
        )
        return {"test": sheet.grid(shown.flatten(0, 1), 4 * ROW)}

    def judge(self, nets: Nets, data: Data) -> dict[str, float]:
        """Return how near the network comes to crops held out, and how near bicubic enlargement does."""
        target = data["test"].float() / 255
        low = self._shrunk(target)
        made = torch.cat([nets["generator"](part) for part in torch.split(low, PASS)]).clamp(0, 1)
        return {
            "test PSNR": self._psnr(made, target),
            "bicubic PSNR": self._psnr(clean(low, (self.crop, self.crop)), target),
        }

    def _shrunk(self, x: Tensor) -> Tensor:
        return clean(x, (self.crop // self.scale, self.crop // self.scale))

    def _psnr(self, x: Tensor, y: Tensor) -> float:
        inside = slice(self.scale, -self.scale)  # the edge is cut, not photographed
        error = float((x - y)[..., inside, inside].double().square().mean())
        return -10 * math.log10(error) if error else math.inf
