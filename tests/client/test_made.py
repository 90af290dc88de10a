"""Generation and translation, by both clients and the command line, against the real services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from typer.testing import CliRunner, Result

from iguana import (
    AsyncClient,
    Client,
    GenerateOptions,
    Generations,
    InvalidArgument,
    NotFound,
    Piece,
    TranslateItem,
    Translations,
)
from iguana.cli.app import app
from tests.made import CLASSES, LATENT, SCALE, SHAPE, STYLES, small_generator, small_translator
from tests.rpc.service import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

FACES = "small-faces"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target() -> AsyncIterator[str]:
    networks = (
        small_generator(),
        small_generator("clothes", conditional=True),
        small_translator(),
        small_translator("painter", styled=True),
    )
    async with serving(networks=networks) as running:
        yield running.address


def photo(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


async def iguana(target: str, *arguments: str | Path) -> Result:
    words = [*map(str, arguments), "--server", target]
    runner = CliRunner(env={"COLUMNS": "300"})
    return await asyncio.to_thread(runner.invoke, app, words, catch_exceptions=False)


async def test_pictures_of_seeds(target: str) -> None:
    async with AsyncClient(target) as client:
        made = await client.generate(model=FACES, seeds=range(3), return_latents=True)
        assert [one.sample for one in made] == [0, 1, 2]
        assert made.manifest.model == FACES
        for one in made:
            assert one.picture.pil().size == SHAPE[:0:-1]
            assert one.latent is not None
            assert one.latent.shape == (LATENT,)
            assert one.label is None
        latents = np.stack([one.latent for one in made if one.latent is not None])
        again = await client.generate(model=FACES, latents=latents)
        assert [one.picture.png for one in again] == [one.picture.png for one in made]
        streamed = [one async for one in client.watch_generate(model=FACES, seeds=range(3))]
        assert {one.sample: one.picture.png for one in streamed} == {
            i: m.picture.png for i, m in enumerate(made)
        }


async def test_both_clients_say_the_same(target: str) -> None:
    def plainly() -> list[Any]:
        with Client(target) as client:
            made = client.generate(model="clothes", seeds=7, labels="iguana")
            pictures = [one.picture.png for one in made]
            return [
                [(one.label, one.picture.png) for one in made],
                sorted(
                    (one.sample, one.picture.png) for one in client.watch_generate(model=FACES, seeds=[4, 5])
                ),
                [
                    one.latent.tolist()
                    for one in client.invert(images=pictures, model="clothes", labels=1, steps=5)
                ],
                [(s.logit, s.probability) for s in client.score(pictures, model="clothes", labels=1)],
                client.translate(photo(40, 30), model="small-superres")[0].picture.png,
            ]

    async with AsyncClient(target) as client:
        made = await client.generate(model="clothes", seeds=7, labels="iguana")
        pictures = [one.picture.png for one in made]
        inverted = await client.invert(images=pictures, model="clothes", labels=1, steps=5)
        same = [
            [(one.label, one.picture.png) for one in made],
            sorted(
                [
                    (one.sample, one.picture.png)
                    async for one in client.watch_generate(model=FACES, seeds=[4, 5])
                ]
            ),
            [one.latent.tolist() for one in inverted],
            [(s.logit, s.probability) for s in await client.score(pictures, model="clothes", labels=1)],
            (await client.translate(photo(40, 30), model="small-superres"))[0].picture.png,
        ]
    assert made[0].label == CLASSES.index("iguana")
    assert await asyncio.to_thread(plainly) == same


async def test_expressions_and_codes(target: str) -> None:
    async with AsyncClient(target) as client:
        codes = {"man": 1, "woman": np.zeros(LATENT, np.float32)}
        made = await client.generate(
            model=FACES, codes=codes, expressions=["man + woman", "slerp(man, seed(2), 4)"]
        )
        assert [(one.expression, one.frame) for one in made] == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
        assert made[0].picture.png == made[1].picture.png
        with pytest.raises(InvalidArgument, match=r"expressions\[0\]"):
            await client.generate(model=FACES, expressions="man / 2")
        with pytest.raises(InvalidArgument, match="latents"):
            await client.generate(model=FACES, latents=np.zeros(LATENT))
        with pytest.raises(NotFound):
            await client.generate(model="nobody", seeds=1)


async def test_pieces_put_together_are_the_whole(target: str) -> None:
    pieces: list[Piece] = []
    async with AsyncClient(target) as client:
        whole = await client.translate(photo(60, 40), model="small-superres")
        put = await client.translate(photo(60, 40), model="small-superres", on_piece=pieces.append)
    assert np.array_equal(put[0].picture.pixels, whole[0].picture.pixels)
    assert put[0].picture.pixels.shape == (SCALE * 60, SCALE * 40, 3)
    assert put[0].tiles == whole[0].tiles == len(pieces) > 1
    assert put.manifest == whole.manifest


async def test_pipelines_answer_by_id(target: str) -> None:
    generated: list[tuple[str, GenerateOptions]] = [
        ("a", {"model": FACES, "seeds": 1}),
        ("bad", {"model": FACES, "expressions": "ghost"}),
    ]
    translated: list[tuple[str, TranslateItem]] = [
        ("a", {"images": photo(24, 24), "model": "painter", "styles": {"oil": 2, "ink": 1}}),
        ("bad", {"images": photo(2, 2), "model": "painter"}),
    ]

    def plainly() -> tuple[dict[str, Any], dict[str, Any]]:
        with Client(target) as client:
            return dict(client.stream_generate(generated)), dict(client.stream_translate(translated))

    async with AsyncClient(target) as client:
        made = {i: answer async for i, answer in client.stream_generate(generated)}
        turned = {i: answer async for i, answer in client.stream_translate(translated)}
    for one, other in ((made, turned), await asyncio.to_thread(plainly)):
        assert isinstance(one["a"], Generations)
        assert isinstance(one["bad"], InvalidArgument)
        assert isinstance(other["a"], Translations)
        assert isinstance(other["bad"], InvalidArgument)


async def test_networks_are_listed(target: str) -> None:
    async with AsyncClient(target) as client:
        listed = await client.models()
    faces, superres = listed.generators[1], listed.translators[1]
    assert (faces.name, faces.latent, faces.scores, faces.classes) == (FACES, LATENT, True, ())
    assert (faces.channels, faces.height, faces.width) == SHAPE
    assert listed.generators[0].classes == CLASSES
    assert (superres.name, superres.scale, superres.tile, superres.min_side) == (
        "small-superres",
        SCALE,
        24,
        6,
    )
    assert listed.translators[0].styles == STYLES
    told = json.loads((await iguana(target, "models", "--json")).stdout)
    assert [one["name"] for one in told["generators"]] == ["clothes", FACES]
    text = (await iguana(target, "models")).stdout
    assert "small-superres" in text
    assert "clothes" in text


async def test_the_command_draws_a_grid_of_seeds(target: str, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    told = await iguana(target, "generate", "--model", FACES, "--seed", "1..5", "-o", out)
    assert told.exit_code == 0
    assert f"wrote {out}" in told.stdout
    with Image.open(out) as grid:
        assert grid.width == 3 * 144 + 2 * 4  # three columns of 8 x 12 pictures, twelve times as large
        assert grid.height == 2 * 96 + 4
    told = await iguana(target, "generate", "--model", FACES, "--seed", "2", "--seed", "9", "-o", tmp_path)
    for i in range(2):
        with Image.open(tmp_path / f"{FACES}-000{i}.png") as one:
            assert one.size == SHAPE[:0:-1]


async def test_the_command_asks_for_many_seeds_in_lots(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iguana.cli.generate.LOT", 2)
    told = await iguana(target, "generate", "--model", "clothes", "--seed", "1..5", "-o", tmp_path, "--json")
    assert [one["sample"] for one in json.loads(told.stdout)["pictures"]] == [0, 1, 2, 3, 4]
    async with AsyncClient(target) as client:
        made = await client.generate(model="clothes", seeds=range(1, 6))
    for i, one in enumerate(made):
        with Image.open(tmp_path / f"clothes-{i:04}.png") as drawn:
            assert np.array_equal(np.asarray(drawn), one.picture.pixels)


async def test_the_command_draws_paths_as_rows(target: str, tmp_path: Path) -> None:
    out = tmp_path / "path.png"
    words = ["--code", "a=1", "--code", "b=2", "--expr", "slerp(a, b, 4)", "--expr", "a - b"]
    told = await iguana(target, "generate", "--model", FACES, *words, "-o", out, "--json")
    document = json.loads(told.stdout)
    assert [one["frame"] for one in document["pictures"]] == [0, 1, 2, 3, 0]
    with Image.open(out) as drawn:
        assert drawn.size == (4 * 144 + 3 * 4, 2 * 96 + 4)


async def test_the_command_translates_with_a_sheet(target: str, tmp_path: Path) -> None:
    photo_file, out, sheet = tmp_path / "photo.png", tmp_path / "big.png", tmp_path / "sheet.png"
    Image.fromarray(photo(60, 40)).save(photo_file)
    words: list[str | Path] = ["--model", "small-superres", "-o", out, "--sheet", sheet]
    told = await iguana(target, "translate", photo_file, *words)
    assert told.exit_code == 0, told.output
    async with AsyncClient(target) as client:
        whole = await client.translate(photo(60, 40), model="small-superres")
    with Image.open(out) as drawn:
        assert np.array_equal(np.asarray(drawn), whole[0].picture.pixels)
    with Image.open(sheet) as drawn:
        assert drawn.size == (2 * 2 * SCALE * 40 + 4, 2 * SCALE * 60)  # twice as large, as they are small
    told = await iguana(target, "translate", photo_file, "--model", "painter", "--style", "oil=.5", "-o", out)
    assert told.exit_code == 0


async def test_the_command_inverts(target: str, tmp_path: Path) -> None:
    out = tmp_path / "face.png"
    await iguana(target, "generate", "--model", FACES, "--seed", "3", "-o", tmp_path)
    picture = tmp_path / f"{FACES}-0000.png"
    told = await iguana(target, "invert", picture, "--model", FACES, "--steps", "20", "-o", out)
    assert told.exit_code == 0
    assert " dB, restart" in told.stdout
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "a"], "--seed: want a seed N, or A..B, got 'a'"),
        (["--seed", "5..1"], "--seed: want A..B from low to high"),
        (["--code", "a"], "--code: want NAME=SEED"),
        (["--expr", "a/b"], "expressions[0]: want"),
        ([], "seeds: want one of seeds, latents and expressions, got none"),
        (["--seed", "1", "--label", "3"], "labels: want none, as small-faces has no classes"),
    ],
)
async def test_a_wrong_command_line_is_exit_code_2(
    target: str, tmp_path: Path, words: list[str], said: str
) -> None:
    told = await iguana(target, "generate", "--model", FACES, *words, "-o", tmp_path / "x.png")
    assert told.exit_code == 2
    assert said in told.output
