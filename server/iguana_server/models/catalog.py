"""The built-in models by name: every module of this package that has a `MODELS` table adds its own."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import torch

from iguana_server import models
from iguana_server.errors import NotFound
from iguana_server.models.base import Loader, Model
from iguana_server.models.probe import probe


def available() -> dict[str, Loader]:
    """Return the loaders of all built-in models by name, in order of name; nothing is loaded yet."""
    return tables(models)


def tables(package: ModuleType) -> dict[str, Any]:
    """Return what the `MODELS` tables of a package's modules hold, in order of name."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        table: dict[str, Any] = getattr(importlib.import_module(module.name), "MODELS", {})
        if twice := found.keys() & table.keys():
            raise ValueError(f"{module.name}: want names of its own, got {', '.join(sorted(twice))} again")
        found |= table
    return dict(sorted(found.items()))


def load(name: str, device: torch.device | None = None) -> Model:
    """Load a built-in model (default device: the CPU) and probe it.

    Raises NotFound with the close names; ModelRefused where the weights are missing or the probe fails.
    """
    loaders = available()
    if name not in loaders:
        raise NotFound("model", name, difflib.get_close_matches(name, loaders))
    model = loaders[name](device or torch.device("cpu"))
    model.sizes = probe(model).sizes
    return model
