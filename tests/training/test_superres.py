"""The recipe superres: what it is trained on, its losses, whole runs, and that a manifest serves what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from iguana_server.errors import InvalidArgument
from iguana_server.metrics.resize import clean
from iguana_server.networks import load_manifest
from iguana_server.training import photos
from iguana_server.training.command import main
from iguana_server.training.match import Match
from iguana_server.training.recipes.superres import JUDGED, SuperRes
from iguana_server.translators.base import Translator
from iguana_server.translators.compact import Compact
from tests.training.cut import whole_and_cut

MANIFEST = """
kind = "translator"
name = "sharp"
weights = "sharp.safetensors"
factory = "iguana_server.translators.compact:x2"
channels = [3, 3]
scale = 2
multiple = 1
span = [0, 1]
side = 48
overlap = 6
bucket = 1
max_batch = 1
description = "mine"
licence = "mine"
source = "here"
"""


def edges(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Paint half-planes over each other: straight edges, inside of each a colour with waves on it."""
    picture = np.full((height, width, 3), 128.0)
    y, x = np.mgrid[:height, :width]
    for _ in range(12):
        angle = rng.uniform(0, 2 * np.pi)
        far = (x - rng.uniform(0, width)) * np.cos(angle) + (y - rng.uniform(0, height)) * np.sin(angle)
        inside = np.clip(far + 0.5, 0, 1)[..., None]
        wave = 40 * np.sin(2 * np.pi * far / rng.uniform(5, 12))[..., None]
        picture += inside * (rng.uniform(40, 215, 3) + wave - picture)
    return picture.round().astype(np.uint8)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of different sizes, in PNG and JPEG, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    for i in range(12):
        suffix = ".JPG" if i == 0 else ".png"
        Image.fromarray(edges(rng, 64 + 8 * i, 96)).save(folder / f"{i}{suffix}", quality=95)
    (folder / "notes.txt").write_text("no picture")
    return folder


class Constant(nn.Module):
    """A generator that makes one grey, twice as large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((len(x), 3, 2 * x.shape[2], 2 * x.shape[3]), self.value)


class Logit(nn.Module):
    """A critic that says one thing, of patches."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 1, 3, 3)


def small(**changed: float) -> SuperRes:
    settings = {"crop": 32, "width": 8, "depth": 1, "epochs": 2, "steps": 3, "batch": 2, "critic_width": 4}
    return SuperRes(**settings | changed)  # type: ignore[arg-type]


def test_it_beats_bicubic_on_edges(album: Path, tmp_path: Path) -> None:
    """By 4.2 to 5.7 dB after 200 steps, measured with seeds 0 and 1 and rates of 0.003 and 0.01."""
    game = small(epochs=2, steps=100, width=16, depth=2, rate=3e-3, batch=8, average=0.95)
    first, last = Match(album, tmp_path, game, seed=0).epochs()
    assert last["generator loss"] < 0.7 * first["generator loss"]
    assert last["test PSNR"] > last["bicubic PSNR"] + 2


@pytest.mark.parametrize("adversarial", [0.0, 0.01])
def test_a_run_that_was_cut_ends_as_one_that_was_not(adversarial: float, album: Path, tmp_path: Path) -> None:
    game = small(adversarial=adversarial)
    whole, entries = whole_and_cut(album, tmp_path, game)
    want = whole.players.tensors()
    assert any(key.startswith("net.critic.") for key in want) is bool(adversarial)
    assert all(math.isfinite(value) for entry in entries for value in entry.values())
    with Image.open(tmp_path / "whole" / "views" / "test-0002.png") as sheet:
        assert sheet.size == (8 * 34 - 2, 4 * 34 - 2)


def test_it_adds_up_l1_and_the_critics_word() -> None:
    """A critic that cannot tell costs 2 log 2, and the generator log 2; white is 1 - 0.25 from a dark grey."""
    data = {"photo 0": torch.full((3, 40, 50), 255).byte(), "test": torch.zeros(1)}
    nets = {"generator": Constant(0.25), "critic": Logit()}
    (alone,) = small().moves(nets, data, torch.Generator().manual_seed(0))
    assert alone.player == "generator"
    assert alone.loss.item() == pytest.approx(0.75)
    critic, both = small(adversarial=0.5).moves(nets, data, torch.Generator().manual_seed(0))
    assert critic.player == "critic"
    assert critic.loss.item() == pytest.approx(2 * math.log(2))
    assert both.player == "generator"
    assert both.loss.item() == pytest.approx(0.75 + 0.5 * math.log(2))


def test_figures_are_those_of_the_crops_held_out(album: Path) -> None:
    game = small()
    data = game.load(album)
    assert data["test"].shape == (JUDGED, 3, 32, 32)
    inner = data["test"][:, :, 2:-2, 2:-2].double() / 255
    figures = game.judge({"generator": Constant(0.5)}, data)
    assert figures["test PSNR"] == pytest.approx(-10 * math.log10((inner - 0.5).square().mean()), abs=1e-4)
    whole = data["test"].float() / 255
    back = clean(clean(whole, (16, 16)), (32, 32))[:, :, 2:-2, 2:-2].double()
    assert figures["bicubic PSNR"] == pytest.approx(
        -10 * math.log10((back - inner).square().mean()), abs=1e-4
    )


def test_a_crop_is_a_part_of_its_picture() -> None:
    pictures = [torch.arange(3 * 7 * 9).view(3, 7, 9), -torch.arange(3 * 5 * 6).view(3, 5, 6)]
    ends = 1 - 2**-53
    places = torch.tensor([[0, 0, 0, 0, 0], [0.4, ends, ends, 0, 0.5], [ends, 0, ends, ends, 0]]).double()
    places[places > 0.999] = ends
    first, second, third = photos.crops(pictures, places, 5)
    assert torch.equal(first, pictures[0][:, :5, :5])
    assert torch.equal(second, pictures[0][:, 2:, 4:].flip(2))
    assert torch.equal(third, pictures[1][:, :, 1:].flip(1))


def test_a_picture_held_out_is_not_trained_on(album: Path, tmp_path: Path) -> None:
    train, test = photos.load(album, 32)
    assert (len(train), len(test)) == (11, 1)
    for path in album.iterdir():  # other names, and a copy of each
        for name in ("a", "b"):
            (tmp_path / f"{name}{path.name}").write_bytes(path.read_bytes())
    twice = photos.load(tmp_path, 32)
    assert [len(part) for part in twice] == [22, 2]
    assert all(torch.equal(x, test[0]) for x in twice[1])
    assert photos.digest(tmp_path) != photos.digest(album)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_pictures_become_rgb_or_are_refused(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    for i in range(2):
        Image.new(mode, (40, 32), (9 * i,) * len(mode) if len(mode) > 1 else 9 * i).save(
            tmp_path / f"{i}.{suffix}"
        )
    if mode == "L":
        (x,), (y,) = photos.load(tmp_path, 32)
        assert x.shape == y.shape == (3, 32, 40)
        assert set(x.flatten().tolist()) | set(y.flatten().tolist()) == {0, 9}
    else:
        with pytest.raises(
            InvalidArgument, match=rf"^data: 0.{suffix}: want grey or RGB of 8 bits, got {mode}"
        ):
            photos.load(tmp_path, 32)


def test_a_folder_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str) -> None:
        with pytest.raises(InvalidArgument, match=said):
            Match(tmp_path, tmp_path / "out", small(), seed=0)

    with pytest.raises(FileNotFoundError):
        Match(tmp_path / "none", tmp_path / "out", small(), seed=0)
    (tmp_path / "notes.txt").write_text("no picture")
    refused(r"^data: want a folder of pictures \(.jpeg, .jpg, .png\), got none in .*")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    refused(r"^data: want 2 different pictures or more, one is held out, got 1$")
    Image.new("RGB", (40, 31)).save(tmp_path / "b.png")
    refused(r"^data: b.png: want 32 x 32 pixels or more, got 40 x 31$")
    Image.new("RGB", (40, 32), "red").save(tmp_path / "b.png")
    monkeypatch.setattr(photos, "PIXELS", 2000)
    refused(r"^data: want 2,000 pixels in all or fewer, got 2,880$")
    monkeypatch.undo()
    (tmp_path / "c.jpg").write_text("no picture")
    refused(r"^data: c.jpg: want PNG or JPEG, got ")
    (tmp_path / "c.jpg").unlink()
    rough = np.random.default_rng(0).integers(256, size=(80, 80, 3)).astype(np.uint8)
    Image.fromarray(rough).save(tmp_path / "d.png")
    content = (tmp_path / "d.png").read_bytes()
    (tmp_path / "d.png").write_bytes(content[: len(content) // 2])
    refused(r"^data: d.png: want a whole picture, got ")


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^superres.scale: want 2 or 4, got 3$"):
        SuperRes(scale=3)
    with pytest.raises(InvalidArgument, match=r"^superres.crop: want a multiple of 4, got 50$"):
        SuperRes(scale=4, crop=50)
    with pytest.raises(InvalidArgument, match=r"^superres.loss: want one of non-saturating, .*, got wgan$"):
        SuperRes(loss="wgan")


def test_a_manifest_serves_what_it_writes(album: Path, tmp_path: Path) -> None:
    flags = "--batch 2 --epochs 1 --steps 1 --crop 32 --half --name sharp"
    main(["superres", "--data", str(album), "--out", str(tmp_path), *flags.split()])
    tensors = load_file(tmp_path / "sharp.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    (tmp_path / "own.toml").write_text(MANIFEST)
    served = load_manifest(tmp_path / "own.toml", torch.device("cpu"))
    assert isinstance(served, Translator)
    net = Compact(2, 32, 4)
    net.load_state_dict({key.removeprefix("generator."): tensor for key, tensor in tensors.items()})
    x = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(served(x, torch.zeros(1, 0)), net(x).clamp(0, 1), atol=1e-6)
    card = json.loads((tmp_path / "sharp.json").read_text())
    assert card["figures"]["bicubic PSNR"] > 10
    assert "bicubic enlargement" in (tmp_path / "sharp.md").read_text()


def test_the_largest_scale_works_too(album: Path, tmp_path: Path) -> None:
    game = small(scale=4, epochs=1, steps=2)
    (entry,) = Match(album, tmp_path, game, seed=0).epochs()
    assert 0 < entry["test PSNR"] < entry["bicubic PSNR"]  # two steps learn nothing
