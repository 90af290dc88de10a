"""The lecture's experiments run through, and end in a plot and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iguana_server.training import experiments
from iguana_server.training.recipes import gan
from iguana_server.training.recipes.gan import GAN


def short(**numbers: Any) -> GAN:
    """The same game, cut short."""
    return GAN(**(numbers | {"steps": 4, "batch": 20}))


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_experiment_ends_in_a_plot_and_its_figures(
    name: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(experiments, "GAN", short)
    monkeypatch.setattr(gan, "JUDGED", 50)
    experiments.main([name, "--data", str(folder), "--out", str(tmp_path)])
    found = json.loads((tmp_path / f"{name}.json").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith(f"{name}: ") for line in lines)
    assert len(found) >= 2
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.size[0] > 800
    if name == "virtual":
        assert max(found["virtual batch norm"].values()) < 1e-6 < min(found["batch norm"].values())


def test_gradient_is_that_of_the_generators_last_move(folder: Path) -> None:
    game = short(width=4)
    players, told = experiments.play(game, game.load(folder), 0)
    assert {key: len(values) for key, values in told.items()} == dict.fromkeys(told, 4)
    squares = [
        float(p.grad.square().sum()) for p in players.nets["generator"].parameters() if p.grad is not None
    ]
    assert told["gradient"][-1] == pytest.approx(sum(squares) ** 0.5, rel=1e-5)
