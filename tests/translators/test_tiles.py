"""Tiles: nothing is lost, nothing twice, and no seam is seen where the overlap is the network's radius."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from iguana_server.translators.tiles import Tile, assemble, cut


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Height, width, side, overlap and multiple that go together."""
    multiple = draw(st.sampled_from([1, 2, 3, 4, 8]))
    side = multiple * draw(st.integers(1, 12))
    overlap = draw(st.integers(0, (side - multiple) // 2))
    return draw(st.integers(1, 90)), draw(st.integers(1, 90)), side, overlap, multiple


def picture(height: int, width: int, channels: int = 1) -> Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


@given(cuts())
@example((1, 1, 8, 2, 4))
@example((64, 65, 64, 31, 2))
def test_every_pixel_is_kept_once(case: tuple[int, int, int, int, int]) -> None:
    height, width = case[:2]
    times = torch.zeros(height, width)
    for tile in cut(*case):
        times[tile.rows.first : tile.rows.last, tile.columns.first : tile.columns.last] += 1
        assert tile.rows.first < tile.rows.last
        assert tile.columns.first < tile.columns.last
    assert (times == 1).all()


@given(cuts())
def test_tiles_have_one_shape_and_reach_as_far_as_they_must(case: tuple[int, int, int, int, int]) -> None:
    *sizes, side, overlap, multiple = case
    tiles = cut(*case)
    for axis, size in zip(("rows", "columns"), sizes, strict=True):
        spans = [getattr(tile, axis) for tile in tiles]
        whole = -(-size // multiple) * multiple  # with the reflection
        want = whole if overlap == 0 else min(side, whole)
        assert {span.stop - span.start for span in spans} == {want}
        for span in spans:
            assert span.start % multiple == 0
            assert span.start >= 0
            assert span.stop <= whole
            assert span.start == span.first == 0 or span.first - span.start >= overlap
            assert (span.stop == whole and span.last == size) or span.stop - span.last >= overlap


@given(cuts(), st.integers(1, 3))
def test_identity_gives_the_picture_back(case: tuple[int, int, int, int, int], scale: int) -> None:
    height, width = case[:2]
    x = picture(height, width, 3)
    tiles = cut(*case)
    pieces = (tile.of(x).repeat_interleave(scale, -1).repeat_interleave(scale, -2) for tile in tiles)
    got = assemble(tiles, pieces, height, width, scale)
    assert torch.equal(got, x.repeat_interleave(scale, -1).repeat_interleave(scale, -2))


@given(cuts())
def test_what_lies_beyond_the_border_is_the_reflection(case: tuple[int, int, int, int, int]) -> None:
    height, width, *_, multiple = case
    below, right = -height % multiple, -width % multiple
    x = picture(height, width)
    padded = x
    while padded.shape[-1] < width + right:  # torch reflects no further than the picture is long
        more = min(width + right - padded.shape[-1], max(1, padded.shape[-1] - 1))
        mode = "reflect" if padded.shape[-1] > 1 else "replicate"
        padded = nn.functional.pad(padded, (0, more), mode=mode)
    while padded.shape[-2] < height + below:
        more = min(height + below - padded.shape[-2], max(1, padded.shape[-2] - 1))
        mode = "reflect" if padded.shape[-2] > 1 else "replicate"
        padded = nn.functional.pad(padded, (0, 0, 0, more), mode=mode)
    for tile in cut(*case):
        rows, columns = tile.rows, tile.columns
        want = padded[:, rows.start : rows.stop, columns.start : columns.stop]
        assert torch.equal(tile.of(x), want)


def test_small_pictures_stay_whole() -> None:
    (tile,) = cut(5, 7, side=8, overlap=3)
    assert tile.of(picture(5, 7)).shape == (1, 5, 7)
    assert {tile.of(picture(5, 90)).shape for tile in cut(5, 90, side=8, overlap=3)} == {(1, 5, 8)}


def test_pictures_stay_whole_without_an_overlap() -> None:
    (tile,) = cut(101, 50, side=16, overlap=0, multiple=4)
    assert tile.of(picture(101, 50)).shape == (1, 104, 52)


@pytest.mark.parametrize(
    ("side", "overlap", "multiple", "said"),
    [
        (10, 2, 4, r"side: want a multiple of 4, got 10"),
        (16, 7, 4, r"overlap: want at most 6 of a side of 16, got 7"),
        (16, 8, 1, r"overlap: want at most 7 of a side of 16, got 8"),
    ],
)
def test_cuts_that_leave_nothing_are_refused(side: int, overlap: int, multiple: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cut(100, 100, side, overlap, multiple)


def test_a_piece_for_every_tile_is_wanted() -> None:
    tiles = cut(20, 20, side=16, overlap=4)
    with pytest.raises(ValueError, match="shorter"):
        assemble(tiles, [tile.of(picture(20, 20)) for tile in tiles[1:]], 20, 20, 1)
    with pytest.raises(ValueError, match="tiles: want one or more"):
        assemble([], [], 20, 20, 1)


def convolutions(layers: int, scale: int) -> Callable[[Tensor], Tensor]:
    """A net of radius `layers` that pads with zeros, as the super-resolution networks do."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        *(layer for _ in range(layers - 2) for layer in (nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3, padding=1))),
        nn.Conv2d(4, scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    )
    return net.double().requires_grad_(False)


def tiled(net: Callable[[Tensor], Tensor], x: Tensor, tiles: list[Tile], scale: int) -> Tensor:
    height, width = x.shape[-2:]
    return assemble(tiles, (net(tile.of(x)) for tile in tiles), height, width, scale)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(13, 30))
def test_tiles_are_exact_with_an_overlap_of_the_radius(height: int, width: int, side: int) -> None:
    net, x = convolutions(6, 2), picture(height, width).double()
    got = tiled(net, x, cut(height, width, side, overlap=6), 2)
    torch.testing.assert_close(got, net(x), rtol=0, atol=1e-12)


def test_a_smaller_overlap_shows_seams() -> None:
    net, errors = convolutions(6, 2), []
    for overlap in (1, 3, 5, 6):
        size = 20 + 3 * (20 - 2 * overlap)  # four tiles that go no further than they must
        x = picture(size, size).double()
        got = tiled(net, x, cut(size, size, 20, overlap), 2)
        errors.append((got - net(x)).abs().max().item())
    assert errors[0] > errors[1] > errors[2] > 1e-12 > errors[3]


def test_pieces_may_be_pixels_and_in_batches() -> None:
    x = (picture(30, 40, 3) * 255).to(torch.uint8).expand(2, 3, 30, 40)
    tiles = cut(30, 40, side=16, overlap=4)
    got = assemble(tiles, (tile.of(x) for tile in tiles), 30, 40, 1)
    assert got.dtype == torch.uint8
    assert torch.equal(got, x)
