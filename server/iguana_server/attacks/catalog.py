"""All attacks by name, found by walking this package: a new attack is one new file."""

import importlib
import inspect
import pkgutil

from iguana_server import attacks
from iguana_server.attacks.base import Attack


def _find() -> dict[str, type[Attack]]:
    found: dict[str, type[Attack]] = {}
    for module in pkgutil.iter_modules(attacks.__path__):
        members = vars(importlib.import_module(f"{attacks.__name__}.{module.name}")).values()
        found |= {
            c.name: c for c in members if inspect.isclass(c) and issubclass(c, Attack) and "name" in vars(c)
        }
    return dict(sorted(found.items()))


ATTACKS: dict[str, type[Attack]] = _find()
