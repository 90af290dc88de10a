"""torch.library.opcheck passes for every op: schema, fake kernel, dispatch."""

import warnings

import pytest
import torch
from torch import Tensor

from .calls import MOVES, Move

KEY = [torch.tensor([1, 2])] * 4
PIXELS = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
ONES = torch.ones(3)


def check(name: str, arguments: tuple[Tensor | bool | int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, inside opcheck
        result = torch.library.opcheck(getattr(torch.ops.iguana, name).default, arguments)
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_moves_pass_opcheck(move: Move, last: bool) -> None:
    check(move.name, tuple(move.arguments((2, 3, 4, 5), last=last, seed=0)))


@pytest.mark.parametrize("last", [False, True])
def test_pixels_pass_opcheck(last: bool) -> None:
    check("pixels_to_float", (PIXELS, ONES, ONES, last))
    layout = torch.channels_last if last else torch.contiguous_format
    check("float_to_pixels", (torch.rand(2, 3, 4, 5).contiguous(memory_format=layout),))


def test_distance_passes_opcheck() -> None:
    check("l2_distance", (torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)))


@pytest.mark.parametrize("name", ["philox_uniform", "philox_normal"])
def test_noise_passes_opcheck(name: str) -> None:
    check(name, (*KEY, 7))
