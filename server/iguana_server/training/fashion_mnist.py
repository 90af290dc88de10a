"""Fashion-MNIST as it is packaged: gzipped IDX files (Debian's `dataset-fashion-mnist`)."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

LICENCE = "MIT (Zalando SE)"


def load(folder: Path, split: Literal["train", "t10k"]) -> tuple[Tensor, Tensor]:
    """Read a split: pictures [n, 1, 28, 28] uint8 and labels [n] int64 (0 to 9).

    Raises FileNotFoundError where the folder lacks a file, ValueError where a file is no IDX file.
    """
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise ValueError(f"{folder}: want one label a picture, got {len(labels)} labels for {len(images)}")
    return images.unsqueeze(1), labels.long()


def read_idx(path: Path) -> Tensor:
    """Read one gzipped IDX file of unsigned bytes: two zeros, type 8, rank, big-endian sizes, bytes."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    rank = raw[3] if len(raw) > 3 else 0
    head = 4 + 4 * rank
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, head, 4)]
    if raw[:3] != b"\0\0\x08" or len(raw) != head + math.prod(shape):
        raise ValueError(f"{path.name}: want an IDX file of bytes, got header {bytes(raw[:4]).hex()}")
    return torch.frombuffer(raw, dtype=torch.uint8, offset=head).view(shape)


def digest(folder: Path) -> str:
    """Return the sha256 over the four files in order of name: it says which data a run has seen."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*-ubyte.gz")):
        whole.update(path.read_bytes())
    return whole.hexdigest()
