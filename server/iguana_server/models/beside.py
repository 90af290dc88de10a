"""What lies beside a manifest: files in its folder, and the network that a factory builds for weights there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from iguana_server.errors import ModelRefused

FACTORY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def refuse(manifest: Path, text: str) -> NoReturn:
    """Raise ModelRefused in the manifest's name."""
    raise ModelRefused(f"{manifest.name}: {text}")


def inside(manifest: Path, key: str, name: str) -> Path:
    """Return the path of a name given under a key, in the manifest's folder. Raises ModelRefused."""
    folder = manifest.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        refuse(manifest, f"{key}: want a path inside the manifest's folder, got {name!r}")
    if not path.is_file():
        refuse(manifest, f"{key}: want a file, got none at {name!r}")
    return path


def build(manifest: Path, factory: str, weights: bytes) -> nn.Module:
    """Build the factory's network and fill it with the weights, all of them and no others. Raises ModelRefused."""
    match = FACTORY.fullmatch(factory)
    if match is None:
        refuse(manifest, f"factory: want package.module:function, got {factory!r}")
    try:
        made = getattr(importlib.import_module(match[1]), match[2])
    except (ImportError, AttributeError) as error:
        raise ModelRefused(f"{manifest.name}: factory: want {factory}, got {error}") from error
    net = made()
    if not isinstance(net, nn.Module):
        refuse(manifest, f"factory: want an nn.Module from {factory}, got {type(net).__name__}")
    try:
        net.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:  # RuntimeError: names or shapes that do not fit
        raise ModelRefused(f"{manifest.name}: weights: want those of {factory}, got {error}") from error
    return net
