"""The press: rows of many callers share passes, and a row's bits are its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.engine import Engine
from iguana_server.engine.answer import Inverted, Mapped
from iguana_server.engine.synthesis import InvertJob, MapJob
from iguana_server.errors import DeadlineExceeded
from iguana_server.generators.base import Generator
from iguana_server.generators.codes import from_seeds
from iguana_server.generators.inversion import Inversion
from iguana_server.synthesis.catalog import proven
from iguana_server.translators.base import Translator
from tests.made import LATENT, SHAPE, SIDE, small_generator, small_translator

ORIGIN: dict[str, Any] = {"method": "test", "caller": "me"}


@pytest.fixture(scope="module")
def generator() -> Generator:
    made = proven(small_generator(conditional=True))
    assert isinstance(made, Generator)
    return made


@pytest.fixture(scope="module")
def translator() -> Translator:
    made = proven(small_translator(styled=True))
    assert isinstance(made, Translator)
    return made


@pytest.fixture
async def engine(generator: Generator, translator: Translator) -> AsyncIterator[Engine]:
    assert generator.critic is not None
    with Engine({}, [generator, generator.critic, translator]) as running:
        yield running


def generating(generator: Generator, seeds: list[int], **more: Any) -> MapJob:
    z = from_seeds(seeds, LATENT)
    label = torch.tensor([seed % 3 for seed in seeds])
    return MapJob((z, label), row_cost=100, **(ORIGIN | {"model": generator.name} | more))


def inverting(
    generator: Generator, target: Tensor, *, steps: int = 12, restarts: int = 2, **more: Any
) -> InvertJob:
    n = len(target)
    table = Inversion(
        z=torch.cat([from_seeds(range(n), LATENT, restart=1 + i) for i in range(restarts)]),
        label=torch.zeros(n, dtype=torch.int64).repeat(restarts),
        target=target.repeat(restarts, 1, 1, 1),
        rate=torch.full((n * restarts,), 0.05),
        prior=torch.full((n * restarts,), 1e-3),
        steps=torch.full((n * restarts,), steps),
    )
    return InvertJob(table, restarts, row_cost=100, **(ORIGIN | {"model": generator.name} | more))


def translating(translator: Translator, x: Tensor, **more: Any) -> MapJob:
    style = torch.eye(3)[torch.arange(len(x)) % 3]
    return MapJob((x, style), row_cost=100, **(ORIGIN | {"model": translator.name} | more))


def value(answer: object) -> Tensor:
    assert isinstance(answer, Mapped)
    return answer.value


async def test_a_seed_has_the_same_bits_in_any_company(engine: Engine, generator: Generator) -> None:
    seeds = list(range(19))
    alone = [value((await engine.run(generating(generator, [seed])))[0]) for seed in seeds]
    whole = await engine.run(generating(generator, seeds))
    assert all(torch.equal(value(a), b) for a, b in zip(whole, alone, strict=True))
    crowd = [generating(generator, [s, 99 - s], caller=f"c{s % 4}", strict=s % 5 != 0) for s in seeds]
    for seed, answers in zip(seeds, await asyncio.gather(*map(engine.run, crowd)), strict=True):
        if seed % 5:
            assert torch.equal(value(answers[0]), alone[seed])
        else:
            assert (value(answers[0]).int() - alone[seed].int()).abs().max() <= 1


async def test_what_comes_out_is_the_networks(engine: Engine, generator: Generator) -> None:
    job = generating(generator, [3, 4, 5, 6])
    answers = await engine.run(job)
    want = ops.float_to_pixels(generator(*job.columns).contiguous())
    assert torch.equal(torch.stack([value(answer) for answer in answers]), want)


async def test_inversion_has_the_same_bits_in_any_company(engine: Engine, generator: Generator) -> None:
    target = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))

    def columns(answer: object) -> tuple[Any, ...]:
        assert isinstance(answer, Inverted)
        return (
            answer.restart,
            answer.step,
            answer.error,
            answer.first_error,
            answer.z.tolist(),
            answer.pixels.tolist(),
        )

    whole = [columns(one) for one in await engine.run(inverting(generator, target))]
    crowd = asyncio.gather(
        *(engine.run(inverting(generator, target.flip(0), steps=k, caller=f"c{k}")) for k in (3, 5, 30)),
        *(engine.run(generating(generator, [k])) for k in range(9)),
    )
    again = [columns(one) for one in await engine.run(inverting(generator, target))]
    await crowd
    assert again == whole
    first = await engine.run(inverting(generator, target[:1]))
    assert columns(first[0]) == whole[0]


async def test_inversion_finds_a_code_that_was_hidden(engine: Engine, generator: Generator) -> None:
    hidden = from_seeds([1234], LATENT)
    target = generator(hidden, torch.zeros(1, dtype=torch.int64))
    (found,) = await engine.run(inverting(generator, target, steps=400, restarts=4))
    assert isinstance(found, Inverted)
    assert found.error < 0.02 * found.first_error
    again = await engine.run(
        MapJob((found.z[None], torch.zeros(1, dtype=torch.int64)), row_cost=1, **ORIGIN, model=generator.name)
    )
    assert torch.equal(value(again[0]), found.pixels)  # what is delivered is what the code makes


async def test_a_picture_that_is_no_number_fails_alone(engine: Engine, generator: Generator) -> None:
    target = torch.rand(3, *SHAPE)
    whole = await engine.run(inverting(generator, target))
    spoilt = target.clone()
    spoilt[1] = float("nan")
    answers = await engine.run(inverting(generator, spoilt))
    assert [answer.finite for answer in answers if isinstance(answer, Inverted)] == [True, False, True]
    for i in (0, 2):
        a, b = answers[i], whole[i]
        assert isinstance(a, Inverted)
        assert isinstance(b, Inverted)
        assert torch.equal(a.z, b.z)


async def test_pictures_of_unlike_sizes_keep_their_bits(engine: Engine, translator: Translator) -> None:
    rng = torch.Generator().manual_seed(2)
    sizes = [(SIDE, SIDE), (8, 12), (SIDE, SIDE), (40, 16), (8, 12)]
    pictures = [
        torch.rand(n, 3, *size, generator=rng) for n, size in zip((1, 3, 9, 1, 2), sizes, strict=True)
    ]
    alone = [await engine.run(translating(translator, x)) for x in pictures]
    jobs = [translating(translator, x, caller=f"c{i}") for i, x in enumerate(pictures)]
    together = await asyncio.gather(*map(engine.run, jobs))
    for a, b in zip(itertools.chain(*alone), itertools.chain(*together), strict=True):
        assert torch.equal(value(a), value(b))


async def test_the_critic_is_asked_under_its_own_name(engine: Engine, generator: Generator) -> None:
    critic = generator.critic
    assert critic is not None
    x, label = torch.rand(6, *SHAPE), torch.arange(6) % 3
    job = MapJob((x, label), row_cost=1, **ORIGIN, model=critic.name)
    logits = torch.stack([value(answer) for answer in await engine.run(job)])
    assert torch.allclose(logits, critic(x, label), atol=1e-6)
    assert logits.shape == (6,)


async def test_who_leaves_or_is_late_makes_room(engine: Engine, generator: Generator) -> None:
    target = torch.rand(4, *SHAPE)
    leaving = asyncio.create_task(engine.run(inverting(generator, target, steps=100_000)))
    late = inverting(generator, target, steps=100_000, deadline=asyncio.get_running_loop().time() + 0.3)
    with pytest.raises(DeadlineExceeded):
        await engine.run(late)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert len(await engine.run(generating(generator, [1, 2]))) == 2
    while any(bench.rows() for bench in engine._benches):
        await asyncio.sleep(0.01)
