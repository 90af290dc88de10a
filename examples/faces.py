"""The lecture's glasses: find what a face generator's codes know of sunglasses, and put them on.

    python -m examples.faces

A server of its own generates 400 faces, and ImageNet's classifier says of each how likely it shows sunglasses. The
mean code of those with them, less that of those without, is put on faces that had no say in it (Radford et al. 2016,
arXiv:1511.06434, 6.3.2). Writes out/faces.png (64 seeds), out/glasses.png (faces, and the same with 1, 1.5 and 2 times
the difference; last row: a random direction as long), out/slerp.png (paths between faces) and prints what the
classifier sees. Wants `make weights`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.demo import OUT, server
from iguana import Client, Generated
from iguana.cli import grid

MODEL, CLASSIFIER = "faces", "efficientnet-lite0"
SEEN, WITH, WITHOUT = 400, 16, 200  # faces looked at; with most and with least sunglasses
SHOWN = range(1000, 1060)  # seeds that had no say
STRENGTHS = (1.0, 1.5, 2.0)
COLUMNS, FRAMES, LOT = 12, 8, 50


def main() -> int:
    """Draw the sheets and print the figures."""
    OUT.mkdir(exist_ok=True)
    with (
        server("--models.load", MODEL, "--models.load", CLASSIFIER) as address,
        Client(address, timeout_s=600) as client,
    ):
        first = client.generate(model=MODEL, seeds=range(64))
        draw(grid.square([one.picture.pil() for one in first]), "faces")
        paths = [f"slerp(seed({a}), seed({a + 1}), {FRAMES})" for a in range(3, 11, 2)]
        made = client.generate(model=MODEL, expressions=paths)
        draw([[p.picture.pil() for p in made if p.expression == i] for i in range(len(paths))], "slerp")

        order = np.argsort([-p for p in sunglasses(client, range(SEEN))]).tolist()
        glasses = f"{mean(order[:WITH])} - {mean(order[-WITHOUT:])}"
        (code,) = client.generate(model=MODEL, expressions=glasses, return_latents=True)
        axis, bright = np.array(code.latent), brightness(client, range(SEEN))
        axis -= bright * (axis @ bright) / (bright @ bright)  # whether it is dark is no matter of glasses
        stray = np.random.default_rng(0).standard_normal(len(axis)).astype(np.float32)
        stray *= np.linalg.norm(axis) / np.linalg.norm(stray)
        rows = []
        for name, direction, strength in [
            ("as they are", axis, 0.0),
            *((f"with {s:g} x glasses", axis, s) for s in STRENGTHS),
            ("with a random direction, as long", stray, 1.0),
        ]:
            moved = with_(client, direction, strength)
            likely = [likelihood(client, moved[i : i + LOT]) for i in range(0, len(moved), LOT)]
            p = np.concatenate(likely)
            print(f"{name:34} P(sunglasses) {p.mean():.4f}, above .03: {(p > 0.03).mean():.0%}", flush=True)
            rows.append([one.picture.pil() for one in moved[:COLUMNS]])
        draw(rows, "glasses")
    return 0


def mean(seeds: list[int]) -> str:
    """The mean code of seeds, as an expression."""
    return f"mean({', '.join(f'seed({seed})' for seed in seeds)})"


def with_(client: Client, direction: NDArray[np.float32], strength: float) -> list[Generated]:
    """The faces that are shown, moved."""
    expressions = [f"seed({seed}) + {strength:g} * d" for seed in SHOWN]
    return list(client.generate(model=MODEL, codes={"d": direction}, expressions=expressions))


def sunglasses(client: Client, seeds: range) -> list[float]:
    """How likely each seed's face shows sunglasses."""
    found: list[float] = []
    for i in range(0, len(seeds), LOT):
        found += likelihood(client, client.generate(model=MODEL, seeds=seeds[i : i + LOT]))
    return found


def likelihood(client: Client, faces: Sequence[Generated]) -> list[float]:
    """P(sunglass) + P(sunglasses) of ImageNet's classes."""
    seen = client.classify([one.picture.png for one in faces], model=CLASSIFIER, top_k=1000)
    return [sum(c.probability for c in one.top if c.name.startswith("sunglass")) for one in seen]


def brightness(client: Client, seeds: range) -> NDArray[np.float32]:
    """The direction of codes along which faces grow brighter: least squares of the mean pixel."""
    made = [
        one
        for i in range(0, len(seeds), LOT)
        for one in client.generate(model=MODEL, seeds=seeds[i : i + LOT], return_latents=True)
    ]
    z = np.stack([one.latent for one in made if one.latent is not None])
    light = np.array([one.picture.pixels.mean() for one in made])
    slope: NDArray[np.float32] = np.linalg.lstsq(z, light - light.mean(), rcond=None)[0].astype(np.float32)
    return slope


def draw(rows: list[list[Image.Image]], name: str) -> None:
    """Write rows of pictures to out/NAME.png."""
    path = OUT / f"{name}.png"
    grid.draw(rows).save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
