"""The ops that move images, as a table: the tests run over all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iguana_server import ops
from iguana_server.ops import reference

Columns = Callable[[int, Generator], list[Tensor]]


@dataclass(frozen=True)
class Move:
    """An op that writes `moved` images, reads `read` more and takes columns."""

    name: str
    moved: int
    read: int
    columns: Columns
    exact: bool = True  # bit-equal to the reference; else it sums over rows in an order of its own

    def native(self, *arguments: Tensor) -> None:
        """Call csrc."""
        getattr(ops, self.name)(*arguments)

    def reference(self, *arguments: Tensor) -> None:
        """Call plain torch."""
        getattr(reference, self.name)(*arguments)

    def arguments(
        self, shape: tuple[int, ...], *, last: bool, seed: int, finite: bool = True
    ) -> list[Tensor]:
        """Random images, the last of them signed, then columns; some pixels not finite if asked."""
        generator = torch.Generator().manual_seed(seed)
        images = [torch.rand(shape, generator=generator) for _ in range(self.moved + self.read)]
        images[-1] -= 0.5
        if not finite:
            for k, value in enumerate((torch.nan, torch.inf, -torch.inf, -0.0, 0.0, 1.0)):
                for image in images:
                    image.masked_fill_(torch.rand(shape, generator=generator) < 0.02 * (k + 1), value)
        if last:
            images = [image.contiguous(memory_format=torch.channels_last) for image in images]
        return [*images, *self.columns(shape[0], generator)]


def column(low: float, high: float) -> Columns:
    """Make a float32 [n] in [low, high), with the ends now and then."""

    def make(n: int, generator: Generator) -> list[Tensor]:
        values = torch.rand(n, generator=generator) * (high - low) + low
        return [torch.where(torch.rand(n, generator=generator) < 0.1, torch.tensor(low), values)]

    return make


def flag(n: int, generator: Generator) -> list[Tensor]:
    """Make a bool [n]."""
    return [torch.rand(n, generator=generator) < 0.5]


def count(n: int, generator: Generator) -> list[Tensor]:
    """Make a step count [n] from 1, some of them large."""
    return [torch.randint(1, 10, (n,), generator=generator) ** torch.randint(1, 6, (n,), generator=generator)]


def together(*makers: Columns) -> Columns:
    """Return the columns of several makers."""
    return lambda n, generator: [one for maker in makers for one in maker(n, generator)]


MOVES = [
    Move("linf_step_", 1, 2, together(column(0, 0.1), column(-0.1, 0.1))),
    Move("l2_step_", 1, 2, together(column(0, 5), column(-5, 5)), exact=False),
    Move("momentum_", 1, 1, column(0, 1), exact=False),
    Move("apgd_step_", 2, 2, together(column(0, 0.1), column(0, 0.2), column(0, 1))),
    Move("forge_step_", 3, 2, together(count, column(0, 0.1), column(0, 1), flag)),
    Move("grid_", 1, 1, column(0, 0.02)),
    Move("keep_", 1, 1, flag),
]


def clones(arguments: list[Tensor]) -> list[Tensor]:
    """Make copies that keep the layout."""
    return [one.clone() for one in arguments]


def same(got: Tensor, want: Tensor) -> None:
    """Equal values, NaN where NaN is; the sign of a zero does not count (see reference.py)."""
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
