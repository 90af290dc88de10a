"""The loop that all recipes share: reproducible, resumable, and it learns."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iguana_server.errors import InvalidArgument
from iguana_server.models import fashion_mnist as model
from iguana_server.training import board, fashion_mnist
from iguana_server.training.batch import augment
from iguana_server.training.catalog import RECIPES
from iguana_server.training.command import main
from iguana_server.training.evaluation import accuracy, robust_accuracy
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Recipe
from iguana_server.training.recipes.standard import Standard
from iguana_server.training.run import Run, rate

SMALL = {"batch": 32, "width": 4}
CLASSIFIERS = {name: recipe for name, recipe in RECIPES.items() if issubclass(recipe, Recipe)}


def train(folder: Path, out: Path, *options: str, recipe: str = "standard") -> dict[str, torch.Tensor]:
    numbers = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]
    main([recipe, "--data", str(folder), "--out", str(out), "--name", "net", *numbers, *options])
    return load_file(out / "net.safetensors")


@pytest.fixture(scope="module")
def start(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to start from."""
    out = tmp_path_factory.mktemp("start")
    train(folder, out, "--epochs", "2")
    return out / "net.safetensors"


def test_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    first = train(folder, tmp_path / "a", "--epochs", "2", "--seed", "3")
    torch.rand(5)  # the global generator decides nothing
    again = train(folder, tmp_path / "b", "--epochs", "2", "--seed", "3")
    other = train(folder, tmp_path / "c", "--epochs", "2", "--seed", "4")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    names = [f"{name}/net.safetensors" for name in "ab"]
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_cut_off_run_ends_at_the_same_weights(name: str, folder: Path, tmp_path: Path, start: Path) -> None:
    options = ["--start", str(start)] if name == "offline" else []
    whole = train(folder, tmp_path / "whole", "--epochs", "2", *options, recipe=name)
    (tmp_path / "cut").mkdir()
    recipe = CLASSIFIERS[name](epochs=2, **SMALL)
    epochs = Run(folder, tmp_path / "cut", recipe, 0, start=start if options else None).epochs()
    assert next(epochs)["epoch"] == 1
    resumed = train(folder, tmp_path / "cut", "--epochs", "2", *options, recipe=name)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    log = json.loads((tmp_path / "cut" / "net.json").read_text())["epochs"]
    assert [entry["epoch"] for entry in log] == [1, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "1"], "'seed': 1"),
        (["--peak", "0.2"], "'peak': 0.2"),
        (["--start"], r"'start': '[0-9a-f]{64}'"),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    options: list[str], said: str, folder: Path, tmp_path: Path, start: Path
) -> None:
    train(folder, tmp_path, "--epochs", "1")
    if options == ["--start"]:
        options = [*options, str(start)]
    with pytest.raises(InvalidArgument, match=rf"^out: .*want the checkpoint of .*{said}.*, got "):
        train(folder, tmp_path, "--epochs", "1", *options)


def test_training_learns(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, tmp_path, "--epochs", "12", "--peak", "0.02", "--shift", "0", "--width", "32")
    card = json.loads((tmp_path / "net.json").read_text())
    assert card["test_accuracy"] > 0.8  # chance is 0.1
    assert card["epochs"][-1]["loss"] < card["epochs"][0]["loss"] / 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert lines[0].startswith("epoch 1/12: loss ")


def test_weights_go_on_from_those_given(folder: Path, tmp_path: Path, start: Path) -> None:
    given = load_file(start)
    still = train(folder, tmp_path, "--epochs", "1", "--peak", "0", "--start", str(start))
    assert all(
        torch.equal(still[key], given[key]) for key in given if "running" not in key and "num" not in key
    )


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path, start: Path) -> None:
    with pytest.raises(
        InvalidArgument, match=r"(?s)^start: want weights of this network, got .*size mismatch"
    ):
        train(folder, tmp_path, "--start", str(start), "--width", "5")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(InvalidArgument, match=r"^start: want weights of this network, got "):
        train(folder, tmp_path, "--start", str(tmp_path / "text"))


def test_card_says_what_made_the_weights(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "1", "--seed", "5", "--epsilon", "0.05", "--half", recipe="fast")
    card = json.loads((tmp_path / "net.json").read_text())
    text = (tmp_path / "net.md").read_text()
    assert card["data_sha256"] == fashion_mnist.digest(folder)
    for said in (card["sha256"], card["data_sha256"], "licence MIT", "epsilon 0.05", "arXiv:2001.03994"):
        assert said in text
    made = "iguana-server train fast --data $data --out DIR --seed 5 --name net --half --epochs 1 --batch 32"
    assert f"{made} --width 4 --epsilon 0.05\n" in text
    prose = [line for line in text.splitlines() if "sha256" not in line and not line.startswith("    ")]
    assert all(len(line) <= 120 for line in prose)


def test_figures_are_those_of_the_stored_weights(folder: Path, tmp_path: Path) -> None:
    weights = train(folder, tmp_path, "--epochs", "3", "--half", "--epsilon", "0.05", recipe="fast")
    assert {str(t.dtype) for t in weights.values()} == {"torch.float16", "torch.int64"}
    card = json.loads((tmp_path / "net.json").read_text())
    assert card["bytes"] == (tmp_path / "net.safetensors").stat().st_size
    net = model.net(SMALL["width"])
    net.load_state_dict(weights)
    served, test = Learner(net).frozen(), fashion_mnist.load(folder, "t10k")
    assert card["test_accuracy"] == accuracy(served, *test)
    assert card["robust_accuracy"] == robust_accuracy(served, *test, 0.05)


def test_tensorboard_is_told_every_epoch(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "2", recipe="fast")
    log = json.loads((tmp_path / "net.json").read_text())["epochs"]
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    for key in ("loss", "accuracy", "robust"):
        assert [(e.step, pytest.approx(e.value)) for e in events.Scalars(key)] == [
            (entry["epoch"], entry[key]) for entry in log
        ]


def test_training_goes_without_tensorboard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "find_spec", {}.get)
    train(folder, tmp_path, "--epochs", "1")
    assert not (tmp_path / "logs").exists()


def test_augmentation_only_flips_and_shifts() -> None:
    x = torch.rand(64, 1, 28, 28)
    y = augment(x, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, [2] * 4, value=model.MEAN)
    seen = set()
    for before, after in zip(padded, y, strict=True):
        (found,) = [
            (flip, top, left)
            for flip in (False, True)
            for top in range(5)
            for left in range(5)
            if torch.equal((before.flip(2) if flip else before)[:, top : top + 28, left : left + 28], after)
        ]
        seen.add(found)
    assert len(seen) > 25  # of 50


def test_rate_rises_to_the_peak_and_falls_to_zero() -> None:
    recipe = Standard(peak=0.2, rise=0.25)
    rates = [rate(recipe, i / 100) for i in range(101)]
    assert max(rates) == rates[25] == 0.2
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{name}.epochs: want a number in \[1, 10000\], got 0"):
        CLASSIFIERS[name](epochs=0)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidArgument, match=r"alp.pairing: .*, got -1") as caught:
        RECIPES["alp"](pairing=-1, epsilon=2.0, peak=float("nan"))  # type: ignore[call-arg]
    assert [field for field, _ in caught.value.violations] == ["alp.peak", "alp.epsilon", "alp.pairing"]


def test_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "iguana_server", "train", "fast", "--data", str(tmp_path)]
    command += ["--out", str(tmp_path / "out"), "--epsilon", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "fast.epsilon: want a number in [0, 1], got 2.0\n")


def test_broken_data_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fashion_mnist.load(tmp_path, "train")
    good = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    bad = tmp_path / "bad.gz"
    for content in (b"", good[:3], good[:-1], good + b"x", b"\0\0\x09" + good[3:]):
        bad.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=r"bad.gz: want an IDX file of bytes"):
            fashion_mnist.read_idx(bad)
