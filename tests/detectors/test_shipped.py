"""The calibrations that are shipped, and the command that makes others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iguana_server.app import load_nets
from iguana_server.calibrate import calibrate, find_model
from iguana_server.config import Config
from iguana_server.detectors.catalog import available
from iguana_server.detectors.net import WEIGHTS, built_in
from iguana_server.errors import InvalidArgument, ModelRefused, NotFound, ServeError
from iguana_server.models import catalog
from iguana_server.models.base import Model
from iguana_server.training import fashion_mnist

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


@pytest.fixture(scope="module")
def model() -> Model:
    return catalog.load("fashion-mnist-cnn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures."""
    made = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(24):
        small = Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8))
        small.resize((40, 36), Image.Resampling.BICUBIC).save(made / f"{i:02}.png")
    return made


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "iguana_server", "calibrate", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", ["fashion-mnist-cnn", "fashion-mnist-ensemble"])
def test_shipped_detectors_keep_their_rate_on_pictures_they_have_not_seen(name: str) -> None:
    model = catalog.load(name)
    net = built_in(model)
    assert net is not None
    assert set(net.detectors) == {one for one, kind in available().items() if not kind.check(model)}
    assert ("disagreement" in net.detectors) == (name == "fashion-mnist-ensemble")
    assert net.calibration.pictures == 5000
    images, _ = fashion_mnist.load(FASHION_MNIST, "t10k")
    screen = net.screen((), 0.05)
    scores = screen.panel.examine(model, images[-300:] / 255)
    for one, column in scores.items():
        flagged = (column > net.calibration.threshold(one, 0.05)).float().mean()
        assert flagged < 0.1, one  # 4 standard deviations above 0.05
    verdicts = [screen.judge({one: float(c[i]) for one, c in scores.items()}) for i in range(300)]
    assert np.mean([verdict.flagged for verdict in verdicts]) < 0.1
    noise = screen.panel.examine(model, torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert all(screen.judge({one: float(c[i]) for one, c in noise.items()}).flagged for i in range(20))


def test_weights_are_small() -> None:
    """All that are committed stay under 10 MB together."""
    found = [path for path in WEIGHTS.parents[1].glob("*/weights/*") if path.is_file()]
    assert {path.parents[1].name for path in found} >= {"models", "generators", "translators"}
    assert sum(path.stat().st_size for path in found) < 10_000_000


def test_command_makes_what_the_server_loads(model: Model, folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "own.safetensors"
    result = command(
        "--model", "fashion-mnist-cnn", "--data", folder, "--fpr", "0.1", "--out", made
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "24 clean pictures: 24 pictures" in result.stdout
    config = Config.load(flags={"models.detectors": [str(made)], "models.load": ["fashion-mnist-cnn"]})
    net = load_nets(config, {"fashion-mnist-cnn": model})["fashion-mnist-cnn"]
    assert list(net.detectors) == ["squeeze", "transform"]  # the others need labels to be fitted
    assert (net.calibration.rate, net.calibration.pictures) == (0.1, 24)
    with pytest.raises(ModelRefused, match="want detectors of a model without others, of those loaded"):
        load_nets(config, {})


def test_command_refuses_by_name_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "x.safetensors"
    result = command("--model", "fashion-mnist-cn", "--data", folder, "--out", made)
    assert result.returncode == 2
    assert "no 'fashion-mnist-cn' (close: fashion-mnist-cnn" in result.stderr
    assert not made.exists()


@pytest.mark.parametrize(
    ("given", "error", "want"),
    [
        ({"names": ["lid"]}, ModelRefused, "fashion-mnist-cnn: lid: want labelled pictures"),
        ({"names": ["x"]}, InvalidArgument, "--detector: want disagreement, learned, .*, got x"),
        ({"rate": 0.01}, InvalidArgument, r"false_positive_rate: want 0.04 \(of 24 clean pictures\) to 0.5, got 0.01"),
    ],
)  # fmt: skip
def test_wrong_wishes_are_refused_by_name(
    given: dict[str, Any], error: type[ServeError], want: str, model: Model, folder: Path
) -> None:
    wishes: dict[str, Any] = {"rate": 0.05, "names": ()}
    with pytest.raises(error, match=want):
        calibrate(model, folder, **wishes | given)


def test_a_folder_without_pictures_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"--data: want a folder of \.png"):
        calibrate(model, tmp_path, rate=0.05, names=())
    with pytest.raises(InvalidArgument, match="--data: want a folder, got"):
        calibrate(model, tmp_path / "none", rate=0.05, names=())


def test_a_model_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--model: want it or --manifest, got both or neither"):
        find_model("", None)
    with pytest.raises(InvalidArgument, match="--model: want it or --manifest, got both or neither"):
        find_model("x", tmp_path / "x.toml")
    with pytest.raises(NotFound):
        find_model("x", None)
