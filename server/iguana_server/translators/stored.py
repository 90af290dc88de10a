"""Committed weights of translators: one file a game, each network's tensors under its name and a dot."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from iguana_server.errors import ModelRefused

FOLDER = Path(__file__).with_name("weights")


def read(path: Path, sha256: str, net: str) -> dict[str, Tensor]:
    """Return a network's tensors. Raises ModelRefused where the file is missing or not the one of `sha256`."""
    if not path.is_file():
        raise ModelRefused(f"{path.name}: want the weights in {path.parent.name}, got none")
    content = path.read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise ModelRefused(f"{path.name}: want sha256 {sha256}, got {got}")
    head = f"{net}."
    return {key.removeprefix(head): t for key, t in load(content).items() if key.startswith(head)}
