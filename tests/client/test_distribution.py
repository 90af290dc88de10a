from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import iguana
from iguana.v1 import attack_pb2, attack_pb2_grpc

PROJECT = tomllib.loads((Path(__file__).parents[2] / "clients/python/pyproject.toml").read_text())["project"]


def test_importing_the_client_takes_no_torch_and_no_server() -> None:
    program = "import sys, iguana, iguana.cli; print(*{m.split('.')[0] for m in sys.modules})"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "iguana" in modules
    assert not {"torch", "iguana_server", "scipy", "torchvision"} & set(modules)


def test_all_that_is_exported_exists() -> None:
    assert sorted(iguana.__all__) == iguana.__all__
    assert all(hasattr(iguana, name) for name in iguana.__all__)


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="iguana")
    assert script.value == "iguana.cli:main"


def test_the_lower_bounds_are_those_of_the_generated_code() -> None:
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", d).groups() for d in PROJECT["dependencies"])  # type: ignore[union-attr, misc]
    generated = Path(attack_pb2.__file__).read_text()
    assert f"Protobuf Python Version: {bounds['protobuf']}\n" in generated
    assert bounds["grpcio"] == attack_pb2_grpc.GRPC_GENERATED_VERSION


def test_the_package_is_typed() -> None:
    assert (Path(iguana.__file__).parent / "py.typed").exists()
