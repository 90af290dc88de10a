"""All recipes by name, found by walking the package `recipes`: a new one is one new file."""

import importlib
import inspect
import pkgutil

from iguana_server.training import recipes
from iguana_server.training.recipe import Recipe


def _find() -> dict[str, type[Recipe]]:
    found: dict[str, type[Recipe]] = {}
    for module in pkgutil.iter_modules(recipes.__path__):
        members = vars(importlib.import_module(f"{recipes.__name__}.{module.name}")).values()
        found |= {
            c.name: c for c in members if inspect.isclass(c) and issubclass(c, Recipe) and "name" in vars(c)
        }
    return dict(sorted(found.items()))


RECIPES: dict[str, type[Recipe]] = _find()
