"""What a generator makes of seeds: the pictures it would serve, on the 8-bit grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iguana_server.errors import InvalidArgument
from iguana_server.generators import codes
from iguana_server.generators.base import Generator

APART = 2**32  # seeds of a set: another set's seeds are others


@torch.inference_mode()
def draw(
    generator: Generator, n: int, seed: int, advance: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, Tensor | None]:
    """Make n pictures, uint8 [n, C, H, W], and their labels [n] where the generator has classes: 0, 1, .. in turn.

    Picture i has the latent code of seed 2^32 `seed` + i, and so is the same whatever n is. `advance` is told how many
    are new. Raises InvalidArgument for a seed outside [0, 2^32), or no picture.
    """
    if not 0 <= seed < APART:
        raise InvalidArgument("--seed", f"want 0 to 2^32 - 1, got {seed}")
    if not 1 <= n <= APART:
        raise InvalidArgument("--n", f"want 1 to 2^32 pictures, got {n}")
    size = generator.sizes[-1]  # every pass is as in STRICT
    classes = len(generator.spec.classes)
    labels = torch.arange(n) % max(1, classes)
    made = []
    for start in range(0, n, size):
        seeds = [seed * APART + i for i in range(start, start + size)]
        z = codes.from_seeds(seeds, generator.spec.latent)
        label = torch.arange(start, start + size) % max(1, classes)
        x = generator(z.to(generator.device), label.to(generator.device))
        made.append(x[: n - start].mul(255).round().byte().cpu())
        advance(len(made[-1]))
    return torch.cat(made), labels if classes else None
