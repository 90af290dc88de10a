"""All attacks and scripts by name, found by walking this package: a new one is one new file."""

import importlib
import inspect
import pkgutil

from iguana_server import attacks
from iguana_server.attacks.base import Attack, Method
from iguana_server.attacks.script import Script


def _find() -> dict[str, type[Method]]:
    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(attacks.__path__):
        members = vars(importlib.import_module(f"{attacks.__name__}.{module.name}")).values()
        found |= {
            c.name: c for c in members if inspect.isclass(c) and issubclass(c, Method) and "name" in vars(c)
        }
    return dict(sorted(found.items()))


CATALOG: dict[str, type[Method]] = _find()
ATTACKS: dict[str, type[Attack]] = {name: c for name, c in CATALOG.items() if issubclass(c, Attack)}
SCRIPTS: dict[str, type[Script]] = {name: c for name, c in CATALOG.items() if issubclass(c, Script)}
