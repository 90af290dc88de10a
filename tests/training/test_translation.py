"""The recipes cyclegan and pix2pix: their losses in closed form, and whole runs of few steps."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from iguana_server.errors import InvalidArgument
from iguana_server.training import openmoji
from iguana_server.training.command import main
from iguana_server.training.match import Match
from iguana_server.training.pool import Pool
from iguana_server.training.recipes import pix2pix
from iguana_server.training.recipes.cyclegan import CycleGAN
from iguana_server.training.recipes.pix2pix import Pix2Pix
from iguana_server.translators import cyclegan as cyclegan_model
from iguana_server.translators import pix2pix as pix2pix_model
from tests.training.cut import whole_and_cut


class Negative(nn.Module):
    """A generator that is its own inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


class Logit(nn.Module):
    """A discriminator that says one thing, of patches."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((len(x), 1, 3, 3), self.value)


class Grey(nn.Module):
    """A generator that makes what goes in grey, and half as bright."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1) / 2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


@pytest.fixture(scope="session")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that can be learned: what is black in the outline is red inside."""
    folder = tmp_path_factory.mktemp("openmoji")
    names = [f"{0x1F600 + i // 2:X}" + ("-200D-2642" if i % 2 else "") for i in range(240)]
    outline = draw(240, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3).numpy()
    colour = np.concatenate([outline, outline // 2, 255 - outline], 1)
    np.savez(folder / openmoji.FILE, outline=outline, colour=colour, name=np.array(names))
    return folder


def test_cyclegan_adds_up_what_the_paper_adds_up() -> None:
    """Generators that invert each other have no cycle loss; what negates a picture is 2 |x| from keeping it."""
    game = CycleGAN(batch=4, cycle=10.0, identity=0.5, pool=0)
    a, b = draw(9, 1, 28, 28, seed=1), draw(9, 1, 28, 28, seed=2)
    a[1:], b[1:] = a[0], b[0]  # whichever is drawn
    nets = {
        **{there: Negative() for there in ("a2b", "b2a")},
        **{f"{there} critic": Logit(0.25) for there in ("a2b", "b2a")},
        **{f"{there} pool": Pool(0, (1, 28, 28)) for there in ("a2b", "b2a")},
    }
    moves = list(game.moves(nets, {"a": a, "b": b}, torch.Generator().manual_seed(0)))
    assert [move.player for move in moves] == ["generators", "critics"]
    size = sum((x[0].float() / 127.5 - 1).abs().mean().item() for x in (a, b))
    assert moves[0].loss.item() == pytest.approx(2 * 0.75**2 + 10 * 0.5 * 2 * size, rel=1e-5)
    assert moves[1].loss.item() == pytest.approx(2 * (0.75**2 + 0.25**2) / 2, rel=1e-6)
    assert {key: value.item() for key, value in moves[0].figures.items()} == pytest.approx(
        {"a2b fooled": 0.75**2, "b2a fooled": 0.75**2, "a2b cycle": 0, "b2a cycle": 0}, abs=1e-6
    )


def test_cyclegans_critics_see_what_the_pool_shows() -> None:
    game = CycleGAN(batch=4, pool=50)
    old = torch.full((50, 1, 28, 28), 0.5)
    seen = []

    class Watch(Logit):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return super().forward(x)

    pools = {there: Pool(50, (1, 28, 28)) for there in ("a2b", "b2a")}
    for pool in pools.values():
        pool.pictures.copy_(old)
        pool.held.fill_(50)
    nets = {
        **{there: Negative() for there in pools},
        **{f"{there} critic": Watch(0.0) for there in pools},
        **{f"{there} pool": pool for there, pool in pools.items()},
    }
    data = {"a": draw(20, 1, 28, 28, seed=1), "b": draw(20, 1, 28, 28, seed=2)}
    list(game.moves(nets, data, torch.Generator().manual_seed(0)))
    shown = torch.cat([seen[3], seen[5]])  # after two by the generators: real, shown, real, shown
    share = (shown == 0.5).flatten(1).all(1).sum().item()
    assert 0 < share < 8
    kept = torch.cat([pool.pictures for pool in pools.values()])
    assert (kept != 0.5).flatten(1).any(1).sum().item() == share


def test_a_pair_of_one_class_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"cyclegan.b: want another class than a, got Bag"):
        CycleGAN(a="Bag", b="Bag")
    with pytest.raises(InvalidArgument, match=r"cyclegan.a: want one of T-shirt/top, .*, got Boot"):
        CycleGAN(a="Boot")


def test_pix2pix_adds_up_what_the_paper_adds_up() -> None:
    """A discriminator that cannot tell costs log 2 on either side; L1 is of pixels in [-1, 1]."""
    game = Pix2Pix(batch=4, near=100.0, shift=0)
    outline, colour = torch.full((5, 1, 32, 32), 255).byte(), torch.zeros(5, 3, 32, 32).byte()
    moves = list(
        game.moves(
            {"generator": Grey(), "critic": Logit(0.0)},
            {"outline": outline, "colour": colour},
            torch.Generator().manual_seed(0),
        )
    )
    assert [move.player for move in moves] == ["critic", "generator"]
    assert moves[0].loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert moves[1].loss.item() == pytest.approx(math.log(2) + 100 * 1.5, rel=1e-6)


def test_a_pair_is_moved_together() -> None:
    x = draw(64, 1, 20, 20).float() / 127.5 - 1
    moved = pix2pix._moved(torch.cat([x, -x], 1), 3, torch.Generator().manual_seed(0))
    inside = moved[:, :, 3:-3, 3:-3]
    assert torch.equal(inside[:, 0], -inside[:, 1])
    for picture, original in zip(inside[:, 0], x[:, 0], strict=True):
        places = [
            (side, top, left)
            for side, source in (("as it was", original), ("flipped", original.flip(1)))
            for top in range(7)
            for left in range(7)
            if torch.equal(picture, source[top : top + 14, left : left + 14])
        ]
        assert len(places) == 1
    white = pix2pix._moved(torch.full((30, 1, 20, 20), -1.0), 3, torch.Generator().manual_seed(0))
    assert set(white.flatten().tolist()) == {-1.0, 1.0}  # what comes in is white
    assert torch.equal(
        pix2pix._moved(x, 0, torch.Generator().manual_seed(0)).flatten(1).sort(1)[0], x.flatten(1).sort(1)[0]
    )


def test_variants_of_a_picture_are_on_one_side(emoji: Path) -> None:
    data = openmoji.load(emoji)
    assert len(data["outline"]) + len(data["test outline"]) == 240
    assert 0.03 < len(data["test outline"]) / 240 < 0.2
    with np.load(emoji / openmoji.FILE) as file:
        first = {str(name).split("-", maxsplit=1)[0] for name in file["name"]}
        held = {
            str(name).split("-", maxsplit=1)[0]
            for name, outline in zip(file["name"], torch.from_numpy(file["outline"]), strict=True)
            if (data["test outline"] == outline).flatten(1).all(1).any()
        }
    assert len(data["test outline"]) == 2 * len(held)
    assert held < first


def test_digest_says_which_pictures_a_run_has_seen(emoji: Path, tmp_path: Path) -> None:
    with np.load(emoji / openmoji.FILE) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez_compressed(tmp_path / openmoji.FILE, **arrays)
    assert openmoji.digest(tmp_path) == openmoji.digest(emoji)
    arrays["colour"][3, 1, 4, 5] ^= 1
    np.savez(tmp_path / openmoji.FILE, **arrays)
    assert openmoji.digest(tmp_path) != openmoji.digest(emoji)


def games() -> dict[str, CycleGAN | Pix2Pix]:
    return {
        "cyclegan": CycleGAN(batch=2, width=4, critic_width=4, epochs=2, steps=2, blocks=1, pool=3),
        "pix2pix": Pix2Pix(batch=2, width=4, critic_width=4, epochs=2, steps=2),
    }


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_a_run_that_was_cut_ends_as_one_that_was_not(
    name: str, folder: Path, emoji: Path, tmp_path: Path
) -> None:
    data, game = (folder if name == "cyclegan" else emoji), games()[name]
    whole, entries = whole_and_cut(data, tmp_path, game)
    if name == "cyclegan":
        assert whole.players.tensors()["net.a2b pool.held"] == 3
    assert all(math.isfinite(value) for entry in entries for value in entry.values())
    assert len(list((tmp_path / "whole" / "views").glob("*.png"))) == 2 * len(
        game.view(whole.players.judged(), whole.data)
    )


def test_cyclegan_writes_what_a_translator_loads(folder: Path, tmp_path: Path) -> None:
    flags = "--batch 2 --critic-width 4 --epochs 1 --steps 1 --half --name shoes"
    main(["cyclegan", "--data", str(folder), "--out", str(tmp_path), *flags.split()])
    tensors = load_file(tmp_path / "shoes.safetensors")
    assert {key.split(".")[0] for key in tensors} == {"a2b", "b2a"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for there in ("a2b", "b2a"):
        cyclegan_model.net().load_state_dict(
            {key.removeprefix(f"{there}."): t for key, t in tensors.items() if key.startswith(there)}
        )
    card = json.loads((tmp_path / "shoes.json").read_text())
    for there in ("a2b", "b2a"):
        assert 0 <= card["figures"][f"{there} target rate"] <= 1
        assert card["figures"][f"{there} cycle L1"] > 0
    text = (tmp_path / "shoes.md").read_text()
    assert re.search(r"iguana-server train cyclegan --data \$data .*--half .*--batch 2", text)
    assert "Licence of the weights: Apache-2.0" in text


def test_pix2pix_writes_what_a_translator_loads(emoji: Path, tmp_path: Path) -> None:
    flags = "--batch 2 --critic-width 4 --epochs 1 --steps 1 --half --name icons"
    main(["pix2pix", "--data", str(emoji), "--out", str(tmp_path), *flags.split()])
    tensors = load_file(tmp_path / "icons.safetensors")
    assert {key.split(".")[0] for key in tensors} == {"generator"}
    pix2pix_model.net().load_state_dict({key.removeprefix("generator."): t for key, t in tensors.items()})
    assert "Licence of the weights: CC BY-SA 4.0" in (tmp_path / "icons.md").read_text()


def test_pix2pix_learns_pairs_that_can_be_learned(emoji: Path, tmp_path: Path) -> None:
    game = Pix2Pix(batch=4, width=4, critic_width=4, epochs=2, steps=30, rate=2e-3, average=0.8, shift=0)
    entries = list(Match(emoji, tmp_path, game, seed=0).epochs())
    assert entries[-1]["test L1"] < 0.6 * entries[-1]["outline L1"]
