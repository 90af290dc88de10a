"""The clean resize: that of clean-fid, without aliasing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iguana_server.metrics import resize
from tests.metrics import references


def circle(side: int) -> torch.Tensor:
    """A thin ring, black on white: [1, 3, side, side]."""
    at = torch.arange(side) - (side - 1) / 2
    radius = (at[:, None] ** 2 + at[None] ** 2).sqrt()
    ring = ((radius - side * 0.4).abs() > 1.5).float()
    return ring.expand(1, 3, side, side).contiguous()


@pytest.mark.parametrize(
    ("side", "size"), [(128, (299, 299)), (1024, (299, 299)), (500, (128, 64)), (28, (299, 299))]
)
@pytest.mark.parametrize("kind", ["ring", "noise"])
def test_it_is_that_of_clean_fid(side: int, size: tuple[int, int], kind: str) -> None:
    rng = torch.Generator().manual_seed(side)
    x = (
        circle(side)
        if kind == "ring"
        else torch.rand(1, 3, side, side, generator=rng).mul(255).round().div(255)
    )
    theirs = references.load("cleanfid.resize").make_resizer("PIL", False, "bicubic", size[::-1])
    want = theirs(x[0].permute(1, 2, 0).mul(255).round().numpy().astype(np.uint8))
    got = resize.clean(x, size)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(got - want).max() < 1e-4  # of 255


def test_without_smoothing_a_ring_comes_out_otherwise() -> None:
    ring = circle(1024)
    rough = torch.nn.functional.interpolate(ring, size=(128, 128), mode="bilinear", align_corners=False)
    assert (rough - resize.clean(ring, (128, 128))).abs().max() * 255 > 100


def test_the_same_size_is_left_alone() -> None:
    x = torch.rand(2, 1, 28, 28)
    assert resize.clean(x, (28, 28)) is x
