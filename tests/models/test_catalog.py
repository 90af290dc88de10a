from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch

from iguana_server import models
from iguana_server.errors import ModelRefused, NotFound
from iguana_server.models import catalog, fashion_mnist

from . import nets

FOLDER = Path(models.__file__).parent
NAMES = [
    "efficientnet-lite-ensemble",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "fashion-mnist-cnn",
    "fashion-mnist-ensemble",
    "fashion-mnist-robust",
]


def test_built_in_models_are_found() -> None:
    assert list(catalog.available()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_model_passes_the_probe_under_its_own_name(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGUANA_CACHE", str(cache))
    model = catalog.load(name)
    assert model.spec.name == name
    assert len(model.sha256) == 64
    assert model.device == torch.device("cpu")


def test_close_names_are_suggested() -> None:
    with pytest.raises(NotFound) as caught:
        catalog.load("efficientnet-lite3")
    assert caught.value.suggestions == tuple(reversed(NAMES[1:4]))
    with pytest.raises(NotFound) as far:
        catalog.load("resnet-50")
    assert far.value.suggestions == ()


def test_new_file_adds_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "another_net.py").write_text("MODELS = {'another-net': lambda device: ('built on', device)}")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    loader = catalog.available()["another-net"]
    sys.modules.pop("iguana_server.models.another_net")
    assert loader(torch.device("cpu")) == ("built on", torch.device("cpu"))  # type: ignore[comparison-overlap]


def test_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thief.py").write_text("MODELS = {'fashion-mnist-cnn': None}")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"thief: want names of its own, got fashion-mnist-cnn again"):
        catalog.available()
    sys.modules.pop("iguana_server.models.thief")


def test_faulty_model_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fashion_mnist.MODELS, "tiny", lambda _: nets.model(nets.BatchAttention()))
    with pytest.raises(ModelRefused, match=r"tiny: rows"):
        catalog.load("tiny")


@pytest.mark.parametrize("trained", fashion_mnist.TRAINED, ids=lambda trained: trained.name)
def test_committed_weights_are_checked(trained: fashion_mnist.Trained, tmp_path: Path) -> None:
    changed = tmp_path / "weights.safetensors"
    content = bytearray(trained.weights.read_bytes())
    assert len(content) < 700_000
    content[-1] ^= 1
    changed.write_bytes(content)
    with pytest.raises(ModelRefused, match=rf"weights.safetensors: want sha256 {trained.sha256}, got "):
        trained.load(torch.device("cpu"), changed)


@pytest.mark.parametrize("trained", fashion_mnist.TRAINED, ids=lambda trained: trained.name)
def test_committed_card_is_of_the_committed_weights(trained: fashion_mnist.Trained) -> None:
    text = trained.weights.with_suffix(".md").read_text()
    assert trained.sha256 in text
    assert f"iguana-server train {trained.recipe} " in text


def test_models_import_only_what_they_may() -> None:
    allowed = {"torch", "numpy", "safetensors", "iguana_server", "__future__"} | sys.stdlib_module_names
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed, path.name
            inside = [name for name in names if name.startswith("iguana_server.")]
            assert all(name.split(".")[1] in {"errors", "models"} for name in inside), path.name
