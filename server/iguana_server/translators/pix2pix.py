"""pix2pix that colours outlines of pictograms: own training, `iguana-server train pix2pix`."""

from __future__ import annotations

from pathlib import Path

import torch

from iguana_server.synthesis.base import Loader
from iguana_server.translators.base import Spec, Translator
from iguana_server.translators.stored import FOLDER, read
from iguana_server.translators.unet import UnetGenerator

NAME = "outline-to-colour"
WEIGHTS = FOLDER / "openmoji_pix2pix.safetensors"
SHA256 = "60665afd89c8724afb6ca51b36141ff054087c5350d9255fb6cde508bbebbb4b"
WIDTH, DOWNS = 16, 5
ROWS = {"cpu": (4, 16), "cuda": (32, 512)}  # bucket and largest pass


def net(width: int = WIDTH, downs: int = DOWNS) -> UnetGenerator:
    """Build the generator: grey pixels [n, 1, 64, 64] in [-1, 1] -> RGB."""
    return UnetGenerator(1, 3, width, downs, "batch")


def load(device: torch.device, weights: Path | None = None) -> Translator:
    """Load the network; raises ModelRefused where the weights are not those of `SHA256`."""
    network = net()
    network.load_state_dict(read(weights or WEIGHTS, SHA256, "generator"))
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name=NAME,
        channels=(1, 3),
        scale=1,
        multiple=2**DOWNS,
        span=(-1.0, 1.0),
        side=64,
        overlap=0,
        bucket=bucket,
        max_batch=max_batch,
        description="pix2pix on OpenMoji: outlines of pictograms on white to coloured ones, 64 x 64",
        licence="CC-BY-SA-4.0",
        source="own training (iguana-server train pix2pix) on OpenMoji 17.0.0, CC BY-SA 4.0",
    )
    return Translator(spec, network, sha256=SHA256, device=device)


MODELS: dict[str, Loader] = {NAME: load}
