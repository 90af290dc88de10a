"""Small random generators and translators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iguana_server.generators.base import Generator
from iguana_server.generators.base import Spec as GeneratorSpec
from iguana_server.translators.base import Spec as TranslatorSpec
from iguana_server.translators.base import Translator

CPU = torch.device("cpu")
LATENT, SHAPE, CLASSES = 12, (3, 8, 12), ("cat", "iguana", "agama")
SIDE, OVERLAP, SCALE, STYLES = 24, 3, 2, ("ink", "oil", "chalk")


class Conditional(nn.Module):
    """Codes and labels to pictures in [-1, 1]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels, height, width = SHAPE
        self.embed = nn.Embedding(max(1, classes), LATENT)
        self.net = nn.Sequential(
            nn.Linear(LATENT, 16 * height * width // 4),
            nn.Unflatten(1, (16, height // 2, width // 2)),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        made: Tensor = self.net(z if label is None else z + self.embed(label))
        return made


class Judge(nn.Module):
    """Pictures and labels to logits."""

    def __init__(self) -> None:
        super().__init__()
        channels, height, width = SHAPE
        self.net = nn.Sequential(
            nn.Conv2d(channels, 8, 3),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(8 * (height - 2) * (width - 2), 1),
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        logit: Tensor = self.net(x)[:, 0]
        return logit if label is None else logit + label.float()


def small_generator(
    name: str = "small-faces", *, conditional: bool = False, critic: bool = True
) -> Generator:
    """A random generator of pictures 8 x 12."""
    classes = CLASSES if conditional else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net, judge = Conditional(len(classes)), Judge()
    spec = GeneratorSpec(
        name=name,
        latent=LATENT,
        classes=classes,
        shape=SHAPE,
        bucket=4,
        max_batch=8,
        description="a small one",
        licence="none",
        source="this file",
    )
    return Generator(spec, net, sha256="d4" * 32, device=CPU, critic=judge if critic else None)


class Mixed(nn.Module):
    """Pictures, and weights of styles, to pictures of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 3, 5, padding=2, padding_mode="reflect")
        self.tint = nn.Linear(len(STYLES), 3)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        made: Tensor = self.net(x) + self.tint(style)[:, :, None, None]
        return made


def small_translator(name: str = "small-superres", *, styled: bool = False) -> Translator:
    """A random network that makes pictures twice as large, in tiles; or one with styles, that takes them whole."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        net = (
            Mixed()
            if styled
            else nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(8, 3 * SCALE**2, 3, padding=1),
                nn.PixelShuffle(SCALE),
            )
        )
    spec = TranslatorSpec(
        name=name,
        channels=(3, 3),
        scale=1 if styled else SCALE,
        multiple=4,
        span=(-1.0, 1.0) if styled else (0.0, 1.0),
        side=SIDE,
        overlap=0 if styled else OVERLAP + 1,
        least=6,
        styles=STYLES if styled else (),
        bucket=4,
        max_batch=8,
        description="a small one",
        licence="none",
        source="this file",
    )
    return Translator(spec, net, sha256="e5" * 32, device=CPU)
