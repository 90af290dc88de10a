from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from iguana_server.models import fashion_mnist as model
from iguana_server.training import classifier, fashion_mnist
from iguana_server.training.__main__ import main


def write_idx(path: Path, values: torch.Tensor) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, values.dim()]) + sizes + values.numpy().tobytes()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that can be learned: the label's row and column are bright."""
    folder = tmp_path_factory.mktemp("data")
    rng = torch.Generator().manual_seed(1)
    for split, n in (("train", 192), ("t10k", 64)):
        labels = torch.randint(10, (n,), generator=rng)
        images = torch.randint(60, (n, 28, 28), generator=rng)
        images[torch.arange(n), 2 * labels + 4] = 250
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images.byte())
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels.byte())
    return folder


def train(folder: Path, out: Path, *options: str) -> dict[str, torch.Tensor]:
    command = ["classifier", "--data", str(folder), "--out", str(out)]
    assert main([*command, "--batch", "32", *options]) == 0
    return load_file(out / "fashion_mnist_cnn.safetensors")


def test_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    first = train(folder, tmp_path / "a", "--epochs", "2", "--seed", "3")
    torch.rand(5)  # the global generator decides nothing
    again = train(folder, tmp_path / "b", "--epochs", "2", "--seed", "3")
    other = train(folder, tmp_path / "c", "--epochs", "2", "--seed", "4")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    names = [f"{name}/fashion_mnist_cnn.safetensors" for name in "ab"]
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()


def test_cut_off_run_ends_at_the_same_weights(folder: Path, tmp_path: Path) -> None:
    whole = train(folder, tmp_path / "whole", "--epochs", "3")
    recipe = classifier.Recipe(epochs=3, batch=32)
    (tmp_path / "cut").mkdir()
    epochs = classifier.Run(folder, tmp_path / "cut", recipe, 0).epochs()
    assert next(epochs)["epoch"] == 1
    resumed = train(folder, tmp_path / "cut", "--epochs", "3")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    log = json.loads((tmp_path / "cut" / "card.json").read_text())["epochs"]
    assert [entry["epoch"] for entry in log] == [1, 2, 3]


def test_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "1")
    with pytest.raises(ValueError, match=r"want the checkpoint of .*'seed': 1"):
        train(folder, tmp_path, "--epochs", "1", "--seed", "1")


def test_training_learns(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, tmp_path, "--epochs", "12", "--peak", "0.02", "--shift", "0")
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["test_accuracy"] > 0.8  # chance is 0.1
    assert card["epochs"][-1]["loss"] < card["epochs"][0]["loss"] / 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert lines[0].startswith("epoch 1/12: loss ")


def test_card_says_what_made_the_weights(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "1", "--seed", "5")
    card = json.loads((tmp_path / "card.json").read_text())
    text = (tmp_path / "fashion_mnist_cnn.md").read_text()
    assert card["data_sha256"] == fashion_mnist.digest(folder)
    for said in (card["sha256"], card["data_sha256"], "licence MIT", "--seed 5", "peak 0.1"):
        assert said in text
    assert all(len(line) <= 120 for line in text.splitlines() if "sha256" not in line)


def test_augmentation_only_flips_and_shifts() -> None:
    x = torch.rand(64, 1, 28, 28)
    y = classifier.augment(x, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, [2] * 4)
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
    recipe = classifier.Recipe(peak=0.2, rise=0.25)
    rates = [classifier.rate(recipe, i / 100) for i in range(101)]
    assert max(rates) == rates[25] == 0.2
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_network_is_small() -> None:
    net = model.net()
    assert sum(p.numel() for p in net.parameters()) <= 300_000
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_broken_data_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fashion_mnist.load(tmp_path, "train")
    good = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    bad = tmp_path / "bad.gz"
    for content in (b"", good[:3], good[:-1], good + b"x", b"\0\0\x09" + good[3:]):
        bad.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=r"bad.gz: want an IDX file of bytes"):
            fashion_mnist.read_idx(bad)
