"""The built-in generators and translators by name: every module of theirs that has a `MODELS` table adds its own."""

from __future__ import annotations

import difflib
from types import ModuleType

import torch

from iguana_server.errors import NotFound
from iguana_server.models.catalog import tables
from iguana_server.synthesis.base import Loader, Network
from iguana_server.synthesis.probe import probe


def available(package: ModuleType) -> dict[str, Loader]:
    """Return the loaders of a package's models by name, in order of name; nothing is loaded yet."""
    return tables(package)


def load(package: ModuleType, name: str, device: torch.device | None = None) -> Network:
    """Load a built-in model of a package (default device: the CPU), and prove it.

    Raises NotFound with the close names; ModelRefused where the weights are missing or the probe fails.
    """
    loaders = available(package)
    if name not in loaders:
        raise NotFound("model", name, difflib.get_close_matches(name, loaders))
    return proven(loaders[name](device or torch.device("cpu")))


def proven(network: Network) -> Network:
    """Probe a network, and its critic if it has one; they know the sizes of their STRICT passes from then on.

    Raises ModelRefused.
    """
    critic: Network | None = getattr(network, "critic", None)
    for one in (network, critic):
        if one is not None:
            one.sizes = probe(one)
    return network
