"""The loop that all games share: reproducible, resumable, and it shows what it does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iguana_server.errors import InvalidArgument
from iguana_server.models import fashion_mnist as classifier
from iguana_server.training import quality, sheet
from iguana_server.training.command import main
from iguana_server.training.losses import LOSSES
from iguana_server.training.match import Match
from iguana_server.training.players import Players
from iguana_server.training.recipes import gan
from iguana_server.training.recipes.gan import GAN

SMALL = ["--steps", "3", "--batch", "20", "--width", "4"]


@pytest.fixture(autouse=True)
def few_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan, "JUDGED", 50)


def train(folder: Path, out: Path, *options: str) -> dict[str, torch.Tensor]:
    main(["gan", "--data", str(folder), "--out", str(out), "--name", "net", *SMALL, *options])
    return load_file(out / "net.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    first = train(folder, tmp_path / "a", "--epochs", "2", "--seed", "3")
    torch.rand(5)  # the global generator decides nothing
    again = train(folder, tmp_path / "b", "--epochs", "2", "--seed", "3")
    assert equal(first, again)
    assert not equal(first, train(folder, tmp_path / "c", "--epochs", "2", "--seed", "4"))


@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "began"],  # whose k must go on
        ["--spectral"],  # whose power iteration must
        ["--virtual", "--critic-steps", "2", "--loss", "wgan-gp", "--constant", "0"],
    ],
    ids=" ".join,
)
def test_cut_off_run_ends_at_the_same_weights(options: list[str], folder: Path, tmp_path: Path) -> None:
    whole = train(folder, tmp_path / "whole", "--epochs", "2", *options)
    cut = tmp_path / "cut"
    words = iter([*options, "--"])
    given: dict[str, object] = {}
    for word in words:
        if word in {"--spectral", "--virtual"}:
            given[word[2:]] = True
        elif word != "--":
            value = next(words)
            key = word[2:].replace("-", "_")
            given[key] = value if key == "loss" else type(getattr(GAN(), key))(value)
    game = GAN(epochs=2, steps=3, batch=20, width=4, **given)  # type: ignore[arg-type]
    assert next(Match(folder, cut, game, 0).epochs())["epoch"] == 1
    assert equal(whole, train(folder, cut, "--epochs", "2", *options))
    checkpoints = [load_file(path / "checkpoint.safetensors") for path in (tmp_path / "whole", cut)]
    assert equal(*checkpoints)
    lines = (cut / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_step_depends_on_seed_and_number_alone(folder: Path) -> None:
    game = GAN(epochs=2, steps=3, batch=20, width=4)
    data = game.load(folder)
    players = [Players(game, 0), Players(game, 0)]
    players[0].step(data, 0)
    players[1].restore(players[0].tensors())
    torch.rand(3)
    assert players[0].step(data, 4) == players[1].step(data, 4)
    assert equal(players[0].tensors(), players[1].tensors())


def test_player_moves_its_own_networks_alone(folder: Path) -> None:
    game = GAN(epochs=1, steps=3, batch=20, width=4)
    data, players = game.load(folder), Players(game, 0)
    rng = torch.Generator().manual_seed(0)
    moved = []
    for move in game.moves(players.nets, data, rng):
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in players.nets.items()}
        players._descend(move, 1.0)
        moved.append(
            [
                name
                for name, net in players.nets.items()
                if any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True))
            ]
        )
    assert moved == [["critic"], ["generator"]]


def test_average_follows_the_weights(folder: Path) -> None:
    game = GAN(epochs=1, steps=3, batch=20, width=4, average=0.9)
    data, players = game.load(folder), Players(game, 0)
    want = players.nets["generator"].get_parameter("last.weight").detach().clone()
    for number in range(3):
        players.step(data, number)
        want = 0.9 * want + 0.1 * players.nets["generator"].get_parameter("last.weight").detach()
    torch.testing.assert_close(players.averages["generator"].get_parameter("last.weight"), want)


def test_rates_fall_linearly_to_zero() -> None:
    game = GAN(constant=0.5)
    assert [game.pace(p) for p in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]
    assert [GAN(constant=1.0).pace(p) for p in (0, 1)] == [1, 1]


@pytest.mark.parametrize("loss", LOSSES)
def test_each_side_descends_its_loss_alone(loss: str, folder: Path) -> None:
    """A critic by itself tells generated from real; then a generator by itself closes the gap again."""
    game = GAN(batch=32, width=4, loss=loss, rate=5e-3, critic_rate=5e-3, clip=0.05)
    data, players = game.load(folder), Players(game, 0)

    def gap(player: str) -> float:
        for number in range(30):
            for move in game.moves(players.nets, data, torch.Generator().manual_seed(number)):
                if move.player == player:
                    players._descend(move, 1.0)
                if move.figures:
                    figures = move.figures
        return (figures["D(real)"] - figures["D(fake)"]).item()

    told = gap("critic")
    assert told < 0 if loss == "began" else told > 0
    assert abs(gap("generator")) < abs(told)


def test_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "1")
    with pytest.raises(InvalidArgument, match=r"^out: .*want the checkpoint of .*'loss': 'lsgan'.*, got "):
        train(folder, tmp_path, "--epochs", "1", "--loss", "lsgan")


def test_run_shows_what_it_does(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, tmp_path, "--epochs", "2")
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for key in ("D(real)", "D(fake)", "FID", "class accuracy", "critic loss", "generator loss"):
        assert all(key in entry for entry in log)
    assert all(0 < entry["D(real)"] < 1 and 0 < entry["D(fake)"] < 1 for entry in log)
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [e.value for e in events.Scalars("FID")] == [pytest.approx(entry["FID"]) for entry in log]
    assert [e.step for e in events.Images("samples")] == [1, 2]
    views = sorted((tmp_path / "views").iterdir())
    assert [path.name for path in views] == ["samples-0001.png", "samples-0002.png"]
    with Image.open(views[0]) as picture:
        assert (picture.mode, picture.size) == ("L", (10 * 30 - 2, 10 * 30 - 2))
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"epoch 1/2: critic loss .*, D\(real\) 0\.\d+, D\(fake\) 0\.\d+, .*FID ", lines[0])
    assert len(lines) == 3


def test_figures_are_those_of_the_stored_weights(folder: Path, tmp_path: Path) -> None:
    weights = train(folder, tmp_path, "--epochs", "2", "--half", "--average", "0.5")
    assert {str(t.dtype) for t in weights.values()} == {"torch.float16", "torch.int64"}
    card = json.loads((tmp_path / "net.json").read_text())
    content = (tmp_path / "net.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    game = GAN(epochs=2, steps=3, batch=20, width=4, average=0.5)
    players = Players(game, 0)
    for name, net in players.judged().items():
        if name in game.exported:
            head = name + "."
            net.load_state_dict({k.removeprefix(head): v for k, v in weights.items() if k.startswith(head)})
    data = game.load(folder)
    with torch.inference_mode():
        assert game.judge(players.judged(), data) == card["figures"]
    state = load_file(tmp_path / "checkpoint.safetensors")
    average = state["average.generator.last.weight"].half()
    assert torch.equal(weights["generator.last.weight"], average)


def test_card_says_what_made_the_weights(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, "--epochs", "1", "--seed", "5", "--spectral", "--loss", "hinge")
    card = json.loads((tmp_path / "net.json").read_text())
    text = (tmp_path / "net.md").read_text()
    for said in (card["sha256"], card["data_sha256"], "licence MIT", "loss hinge", "arXiv:1406.2661", "FID "):
        assert said in text
    made = (
        "iguana-server train gan --data $data --out DIR --seed 5 --name net --epochs 1 --steps 3 --batch 20"
    )
    assert f"{made} --loss hinge --spectral --width 4\n" in text


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match=r"^gan.smoothing: want 1 for hinge, which has no targets, got 0.9"
    ):
        GAN(loss="hinge", smoothing=0.9)
    with pytest.raises(InvalidArgument, match=r"^gan.spectral: want it off for began"):
        GAN(loss="began", spectral=True)
    with pytest.raises(InvalidArgument, match=r"^gan.loss: want one of non-saturating, .*, got log"):
        GAN(loss="log")


def test_batch_that_processes_cannot_share_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iguana_server.training.ranks.world", lambda: 3)
    with pytest.raises(InvalidArgument, match=r"^batch: want a multiple of 3 processes, got 20"):
        Match(folder, tmp_path, GAN(batch=20), 0)


def test_looks_are_the_classifiers() -> None:
    judge = classifier.CNN.load(torch.device("cpu"))
    x = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    classes, features = quality.looks(judge, iter(x.split([20, 10])))  # type: ignore[no-untyped-call]
    assert torch.equal(classes, judge(x).argmax(1))
    assert features.shape == (30, judge.features)


def test_grid_lays_rows_out_in_order() -> None:
    cells = torch.arange(5).float().div(10).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    grid = sheet.grid(cells, 3, gap=1)
    assert grid.shape == (3, 2 * 5 - 1, 3 * 7 - 1)
    for i in range(6):
        want = 1.0 if i == 5 else i / 10  # the place that is left over is white
        top, left = i // 3 * 5, i % 3 * 7
        assert torch.equal(grid[:, top : top + 4, left : left + 6], torch.full((3, 4, 6), want))
    assert float(grid[:, 4].min()) == 1


def test_picture_is_written_as_it_is(tmp_path: Path) -> None:
    for channels in (1, 3):
        picture = (
            torch.randint(256, (channels, 5, 7), generator=torch.Generator().manual_seed(0)).float() / 255
        )
        sheet.write(tmp_path / "x.png", picture)
        with Image.open(tmp_path / "x.png") as image:
            levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(5, 7, channels)
        assert torch.equal(levels.movedim(2, 0).float() / 255, picture)
