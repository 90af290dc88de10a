"""Imports point one way: rpc -> engine -> attacks, models -> ops; only rpc knows the wire."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parent.parent / "server" / "iguana_server"

# What a package may import of the server, beside itself and `errors`.
ALLOWED: dict[str, set[str]] = {
    "ops": set(),
    "transforms": set(),
    "errors": set(),
    "models": set(),
    "attacks": {"ops", "transforms"},
    "synthesis": {"models"},
    "generators": {"synthesis", "models", "ops"},
    "translators": {"synthesis", "models"},
    "metrics": set(),
    "detectors": {"models"},
    "engine": {"attacks", "detectors", "generators", "models", "ops", "synthesis"},
    "training": {"models", "detectors", "attacks", "engine", "generators", "translators", "metrics"},
    "evaluation": {
        "app",
        "attacks",
        "config",
        "generators",
        "metrics",
        "models",
        "rpc",
        "synthesis",
        "training",
        "translators",
    },
    "telemetry": {"config", "engine"},
    "rpc": {
        "engine",
        "attacks",
        "detectors",
        "generators",
        "models",
        "ops",
        "synthesis",
        "telemetry",
        "translators",
        "config",
    },
}
# Who may import these from outside.
WIRE = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "google", "iguana"}
ONLY: dict[str, set[str]] = {
    **{name: {"rpc", "app", "telemetry"} for name in WIRE},
    "prometheus_client": {"telemetry"},
    "iguana": {"rpc", "app", "telemetry", "evaluation"},
    "opentelemetry": {"telemetry", "rpc"},
    "PIL": {"rpc", "training"},
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _part(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


FILES = [
    path
    for path in SERVER.rglob("*.py")
    if path.parent != SERVER or _part(path) in {"errors", "app", "config"}
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_imports_point_one_way(path: Path) -> None:
    part, imports = _part(path), _imports(path)
    inside = {name.split(".")[1] for name in imports if name.startswith("iguana_server.")}
    if part in ALLOWED:
        assert inside - {part, "errors"} <= ALLOWED[part]
    for name in {name.split(".")[0] for name in imports} & set(ONLY):
        assert part in ONLY[name], f"{name} in {part}"


def test_the_queue_knows_no_torch() -> None:
    assert not {name.split(".")[0] for name in _imports(SERVER / "engine" / "queue.py")} & {"torch", "numpy"}


def test_every_part_is_in_the_table() -> None:
    packages = {path.name for path in SERVER.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert packages <= set(ALLOWED)


def test_a_wrong_import_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from iguana_server import rpc\nimport grpc.aio\n")
    assert {"iguana_server.rpc", "grpc.aio"} <= _imports(wrong)
