"""All detectors by name, found by walking this package: a new detector is one new file."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping

from iguana_server import detectors
from iguana_server.detectors.base import Detector


@functools.cache
def available() -> Mapping[str, type[Detector]]:
    """Return the detectors in order of name."""
    found: dict[str, type[Detector]] = {}
    for module in pkgutil.iter_modules(detectors.__path__):
        members = vars(importlib.import_module(f"{detectors.__name__}.{module.name}")).values()
        found |= {
            c.name: c for c in members if inspect.isclass(c) and issubclass(c, Detector) and "name" in vars(c)
        }
    return dict(sorted(found.items()))
