"""Many callers at once, mixed methods: everybody gets his own, and the same as alone."""

from __future__ import annotations

import asyncio
import random

import numpy as np
from numpy.typing import NDArray

from iguana import AsyncClient

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
