"""All recipes by name, found by walking the package `recipes`: a new one is one new file."""

import importlib
import inspect
import pkgutil

from iguana_server.training import recipes
from iguana_server.training.settings import Settings


def _find() -> dict[str, type[Settings]]:
    found: dict[str, type[Settings]] = {}
    for module in pkgutil.iter_modules(recipes.__path__):
        members = vars(importlib.import_module(f"{recipes.__name__}.{module.name}")).values()
        found |= {
            c.name: c for c in members if inspect.isclass(c) and issubclass(c, Settings) and "name" in vars(c)
        }
    return dict(sorted(found.items()))


RECIPES: dict[str, type[Settings]] = _find()
