"""A small conditional generator of Fashion-MNIST's clothes, and the discriminator it was trained against.

Class-conditional BatchNorm (Dumoulin et al. 2017, arXiv:1610.07629) in a DCGAN's generator (Radford et al. 2016,
arXiv:1511.06434); a projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637). All upsampling is by
transposed convolutions whose kernel, 4, the stride, 2, divides: so every pixel has as many taps as its
neighbours, and there is no checkerboard (Odena et al. 2016, Distill).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.generators.base import Generator, Spec
from iguana_server.models.fashion_mnist import CLASSES, ROWS
from iguana_server.synthesis.base import Loader

WEIGHTS = Path(__file__).with_name("weights") / "fashion_mnist_gan.safetensors"
SHA256 = "0d6a19c128739469c35416230ce5a64ef31e7f7728a3fb3c7024899838107034"
LATENT = 100  # as the DCGAN's
WIDTH = 24  # channels at 28 x 28

Norm = Callable[[int], nn.Module]  # channels -> a normalisation without weights


def plain(channels: int) -> nn.Module:
    """BatchNorm without gain and bias."""
    return nn.BatchNorm2d(channels, affine=False)


class ClassNorm(nn.Module):
    """A normalisation whose gain and bias are the class's: [n, C, H, W] and labels [n] to [n, C, H, W]."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.gain = nn.Embedding(len(CLASSES), channels)
        self.bias = nn.Embedding(len(CLASSES), channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Normalise, then scale and shift each row by its class."""
        gain, bias = (table(label)[:, :, None, None] for table in (self.gain, self.bias))
        return torch.addcmul(bias, self.norm(x), gain)


class Net(nn.Module):
    """Codes [n, 100] and labels [n] int64 to pixels [n, 1, 28, 28] in [-1, 1]: 7 x 7, 14 x 14, 28 x 28."""

    def __init__(self, width: int = WIDTH, norm: Norm = plain) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, 49 * 3 * width, bias=False)
        self.start = nn.Embedding(len(CLASSES), 49 * 3 * width)  # the class's own picture at 7 x 7
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(3 * width, 2 * width, 4, 2, 1, bias=False),
                nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            ]
        )
        self.norms = nn.ModuleList([ClassNorm(k * width, norm) for k in (3, 2, 1)])
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Map codes and labels to pixels."""
        x = self.first(z) + self.start(label)
        x = x.view(len(z), 7, 7, -1).permute(0, 3, 1, 2)  # channels_last as it is
        x = self.norms[0](x, label).relu()
        for up, norm in zip(self.up, self.norms[1:], strict=True):
            x = norm(up(x), label).relu()
        pixels: Tensor = self.last(x).tanh()
        return pixels


class Critic(nn.Module):
    """Pixels [n, 1, 28, 28] in [-1, 1] and labels [n] to one logit a row, [n]: above 0 is real."""

    def __init__(self, width: int = WIDTH, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),  # 14 x 14
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, 2, 1),  # 7 x 7
            norm(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
            norm(4 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
        )
        size = 49 * 4 * width
        self.real = nn.Linear(size, 1)
        self.fits = nn.Embedding(len(CLASSES), size)  # what the class adds: the projection
        nn.init.zeros_(self.fits.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Map pixels and labels to logits."""
        features = self.features(x)
        logits: Tensor = self.real(features).squeeze(1) + (self.fits(label) * features).sum(1)
        return logits


def load(device: torch.device) -> Generator:
    """Load the committed weights; raises ModelRefused where they are not those of `SHA256`."""
    content = WEIGHTS.read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ModelRefused(f"{WEIGHTS.name}: want sha256 {SHA256}, got {got}")
    tensors = load_safetensors(content)
    net, critic = Net(), Critic()
    for name, one in (("generator.", net), ("critic.", critic)):
        one.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
        one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name="fashion-mnist-gan",
        latent=LATENT,
        classes=CLASSES,
        shape=(1, 28, 28),
        bucket=bucket,
        max_batch=max_batch,
        description="clothes, 28 x 28 grey, of the class that is asked for",
        licence="Apache-2.0",
        source="own training (iguana-server train gan) on Xiao et al. 2017, arXiv:1708.07747",
    )
    return Generator(spec, net, sha256=SHA256, device=device, critic=critic)


MODELS: dict[str, Loader] = {"fashion-mnist-gan": load}
