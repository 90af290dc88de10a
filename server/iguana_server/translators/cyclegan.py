"""CycleGAN between two kinds of shoes of Fashion-MNIST: own training, `iguana-server train cyclegan`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from iguana_server.synthesis.base import Loader
from iguana_server.translators.base import Spec, Translator
from iguana_server.translators.resnet import MULTIPLE, ResnetGenerator
from iguana_server.translators.stored import FOLDER, read

WEIGHTS = FOLDER / "fashion_mnist_cyclegan.safetensors"
SHA256 = "d01fdfd1007435d1479da4ded2675e14158687973b538981ed249d80a20a17bb"
WIDTH, BLOCKS = 16, 3
DIRECTIONS = {
    "sneaker-to-boot": ("a2b", "sneakers to ankle boots"),
    "boot-to-sneaker": ("b2a", "ankle boots to sneakers"),
}
ROWS = {"cpu": (4, 64), "cuda": (32, 1024)}  # bucket and largest pass


def net(width: int = WIDTH, blocks: int = BLOCKS) -> ResnetGenerator:
    """Build a generator: pixels [n, 1, 28, 28] in [-1, 1] -> the same."""
    return ResnetGenerator(1, 1, width, blocks, "instance")


def load(name: str, device: torch.device, weights: Path | None = None) -> Translator:
    """Load one direction by name; raises ModelRefused where the weights are not those of `SHA256`."""
    there, said = DIRECTIONS[name]
    network = net()
    network.load_state_dict(read(weights or WEIGHTS, SHA256, there))
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name=name,
        channels=(1, 1),
        scale=1,
        multiple=MULTIPLE,
        span=(-1.0, 1.0),
        side=28,
        overlap=0,  # InstanceNorm sees the whole picture
        bucket=bucket,
        max_batch=max_batch,
        description=f"CycleGAN on Fashion-MNIST: {said}, 28 x 28 grey",
        licence="Apache-2.0",
        source="own training (iguana-server train cyclegan) on Xiao et al. 2017, arXiv:1708.07747",
    )
    return Translator(spec, network, sha256=SHA256, device=device)


MODELS: dict[str, Loader] = {name: partial(load, name) for name in DIRECTIONS}
