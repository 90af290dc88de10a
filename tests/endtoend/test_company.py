"""Many callers at once, mixed methods: everybody gets his own, and the same as alone."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import torch
from numpy.typing import NDArray

from iguana import AsyncClient
from iguana.image import Pixels
from iguana_server import generators, translators
from iguana_server.generators import codes
from iguana_server.generators.base import Generator
from iguana_server.models import catalog as classifiers
from iguana_server.synthesis import catalog
from iguana_server.translators.base import Translator

MODEL = "fashion-mnist-cnn"


def _pictures(n: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)


async def test_300_mixed_calls_are_answered_as_each_alone(server: str) -> None:
    """Unlike calls of six callers; each is then made again by itself, and gives the same bytes."""
    draw = random.Random(0)
    clients = [AsyncClient(server, caller=f"caller-{i}") for i in range(6)]

    async def call(i: int) -> object:
        client, images = clients[i % 6], _pictures(1 + i % 3, seed=i)
        kind = i % 5
        if kind < 2:
            answers = await client.classify(images, model=MODEL, logits=True)
            return [np.asarray(a.logits).tobytes() for a in answers]
        method = ["pgd", "mifgsm", "apgd"][kind - 2]
        answer = await client.attack(
            images,
            method,
            model=MODEL,
            epsilon=(1 + i % 7) / 100,
            steps=3 + i % 9,
            seed=i,
            stop=["success", "never"][i % 2],
        )
        return [(r.png, r.margin, r.step, r.forward) for r in answer.results]

    order = list(range(300))
    draw.shuffle(order)
    together = dict(zip(order, await asyncio.gather(*map(call, order)), strict=True))
    assert len({str(answer) for answer in together.values()}) == 300
    for i in range(0, 300, 7):
        assert await call(i) == together[i]
    for client in clients:
        await client.close()


async def test_1000_mixed_calls_of_all_kinds_and_no_mix_up(everything: str) -> None:
    """Every call has a picture or a seed of its own, and the test the same weights: each answer is its caller's."""
    draw = random.Random(1)
    clients = [AsyncClient(everything, caller=f"caller-{i}", timeout_s=300) for i in range(8)]
    gan, boot = _generator(), _translator()
    net = classifiers.load(MODEL)

    async def call(i: int) -> tuple[str, bool]:
        client, own = clients[i % 8], _pictures(1 + i % 2, seed=i)
        x = torch.tensor(own).permute(0, 3, 1, 2) / 255
        kind = ("generate", "translate", "classify", "attack", "generate")[i % 5]
        if kind == "generate":
            seeds = range(3 * i, 3 * i + 1 + i % 3)
            made = await client.generate(model=gan.name, seeds=seeds, encoding="tensor")
            want = gan(codes.from_seeds(seeds, gan.spec.latent), codes.labels_of(seeds, 10))
            return kind, _near([one.picture.pixels for one in made], want)
        if kind == "translate":
            turned = await client.translate(own, model=boot.name, encoding="tensor")
            return kind, _near([one.picture.pixels for one in turned], boot(x, x.new_empty(len(x), 0)))
        if kind == "classify":
            seen = await client.classify(own, model=MODEL, logits=True)
            logits = torch.stack([torch.tensor(np.asarray(one.logits)) for one in seen])
            return kind, torch.allclose(logits, net(x), atol=1e-3)
        epsilon = (1 + i % 7) / 100
        forged = await client.attack(own, model=MODEL, epsilon=epsilon, steps=3, seed=i, return_clean=True)
        ball = [
            np.abs(r.picture.pixels.astype(int) - pixels).max() <= 255 * epsilon + 1e-6
            for r, pixels in zip(forged.results, own, strict=True)
            if r.picture is not None
        ]
        return kind, len(ball) == len(own) and all(ball)

    order = list(range(1000))
    draw.shuffle(order)
    with torch.inference_mode():
        answers = await asyncio.gather(*map(call, order))
    assert [i for i, (_, sound) in zip(order, answers, strict=True) if not sound] == []
    assert {kind for kind, _ in answers} == {"generate", "translate", "classify", "attack"}
    for client in clients:
        await client.close()


async def test_a_seed_has_the_same_bytes_after_a_restart(everything: str, server: str) -> None:
    """Two processes, in company and alone."""
    async with AsyncClient(everything) as one, AsyncClient(server) as other:
        many = await one.generate(model="fashion-mnist-gan", seeds=range(40))
        for i in range(0, 40, 5):
            (alone,) = await other.generate(model="fashion-mnist-gan", seeds=[i])
            assert alone.picture.png == many[i].picture.png


def _near(pictures: list[Pixels], want: torch.Tensor) -> bool:
    """Whether pictures are those wanted, [n, C, H, W] in [0, 1], but for the order of sums."""
    levels = (want * 255).permute(0, 2, 3, 1).numpy()
    return len(pictures) == len(want) and all(
        np.abs(picture - level).max() <= 0.6 for picture, level in zip(pictures, levels, strict=True)
    )


def _generator() -> Generator:
    found = catalog.load(generators, "fashion-mnist-gan")
    assert isinstance(found, Generator)
    return found


def _translator() -> Translator:
    found = catalog.load(translators, "sneaker-to-boot")
    assert isinstance(found, Translator)
    return found
