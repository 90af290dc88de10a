"""The calibrations that are shipped, and the command that makes others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from iguana_server.app import load_nets
from iguana_server.cli import app
from iguana_server.config import Config
from iguana_server.detectors.catalog import available
from iguana_server.detectors.net import built_in
from iguana_server.errors import ModelRefused
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


def calibrate(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["calibrate", *map(str, arguments)])


def test_shipped_detectors_keep_their_rate_on_pictures_they_have_not_seen(model: Model) -> None:
    net = built_in(model)
    assert net is not None
    assert set(net.detectors) == set(available())
    assert net.calibration.pictures == 5000
    images, _ = fashion_mnist.load(FASHION_MNIST, "t10k")
    screen = net.screen((), 0.05)
    scores = screen.panel.examine(model, images[-300:] / 255)
    for name, column in scores.items():
        flagged = (column > net.calibration.threshold(name, 0.05)).float().mean()
        assert flagged < 0.1, name  # 4 standard deviations above 0.05
    verdicts = [screen.judge({name: float(c[i]) for name, c in scores.items()}) for i in range(300)]
    assert np.mean([verdict.flagged for verdict in verdicts]) < 0.1
    noise = screen.panel.examine(model, torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert all(screen.judge({name: float(c[i]) for name, c in noise.items()}).flagged for i in range(20))


def test_command_makes_what_the_server_loads(model: Model, folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "own.safetensors"
    result = calibrate(
        "--model", "fashion-mnist-cnn", "--data", folder, "--scale", "1", "--scale", "1.5", "--fpr", "0.1", "--out", made
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "144 pictures (24 photographs, 6 crops of each)" in result.stdout
    config = Config.load(flags={"models.detectors": [str(made)], "models.load": ["fashion-mnist-cnn"]})
    net = load_nets(config, {"fashion-mnist-cnn": model})["fashion-mnist-cnn"]
    assert list(net.detectors) == ["squeeze", "transform"]  # the others need labels to be fitted
    assert (net.calibration.rate, net.calibration.pictures) == (0.1, 144)
    with pytest.raises(ModelRefused, match="want detectors of a model without others, of those loaded"):
        load_nets(config, {})


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--model", "fashion-mnist-cn"], "model: no 'fashion-mnist-cn' (close: fashion-mnist-cnn"),
        ([], "--model: want it or --manifest, got both or neither"),
        (["--model", "fashion-mnist-cnn", "--detector", "lid"], "fashion-mnist-cnn: lid: want labelled pictures"),
        (["--model", "fashion-mnist-cnn", "--detector", "x"], "--detector: want learned, lid, "),
        (["--model", "fashion-mnist-cnn", "--scale", "0.5"], "--scale: want 1 to 4, got 0.5"),
        (["--model", "fashion-mnist-cnn", "--fpr", "0.01"], "false_positive_rate: want 0.04 (of 24 clean pictures) to 0.5, got 0.01"),
    ],
)  # fmt: skip
def test_command_refuses_by_name(arguments: list[str], want: str, folder: Path, tmp_path: Path) -> None:
    result = calibrate(*arguments, "--data", folder, "--out", tmp_path / "x.safetensors")
    assert result.exit_code == 2
    assert want in result.output
    assert not (tmp_path / "x.safetensors").exists()


def test_command_refuses_a_folder_without_pictures(tmp_path: Path) -> None:
    result = calibrate("--model", "fashion-mnist-cnn", "--data", tmp_path)
    assert result.exit_code == 2
    assert "--data: want a folder of .png" in result.output
