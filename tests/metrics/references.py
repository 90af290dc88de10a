"""The field's implementations, loaded without torchvision: of them only functions of arrays are called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """A module whose names are all there, as empty classes: enough to import what would import it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        vars(self)["__path__"] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.inception",
    "torchvision.models.utils",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """The wheels of torchvision that fit a torch of the CPU are not on the package index; for the time, it is empty."""
    before = {name: sys.modules.get(name) for name in NAMES}
    for name in NAMES:
        module = _Absent(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
        if "." in name:
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
    try:
        yield
    finally:
        for name, found in before.items():
            del sys.modules[name]
            if found is not None:
                sys.modules[name] = found


def load(name: str) -> Any:
    """Import a module of theirs."""
    with _without_torchvision():
        return importlib.import_module(name)
