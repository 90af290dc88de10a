"""Bytes to floats and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iguana_server import ops
from iguana_server.ops import reference

from .calls import same

SIZES = st.one_of(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.integers(1, 5)),
    st.sampled_from([(2, 130, 131, 3), (1, 130, 131, 1), (1, 40, 40, 4), (1, 2, 2, 1500)]),
)


@settings(max_examples=80, deadline=None)
@given(shape=SIZES, last=st.booleans(), plain=st.booleans(), seed=st.integers(0, 2**32))
def test_pixels_to_float_equals_reference(
    shape: tuple[int, int, int, int], last: bool, plain: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    u8 = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    channels = shape[3]
    scale = torch.ones(channels) if plain else torch.rand(channels, generator=generator) * 5
    bias = torch.zeros(channels) if plain else torch.rand(channels, generator=generator) - 0.5
    got = ops.pixels_to_float(u8, scale, bias, channels_last=last)
    want = reference.pixels_to_float(u8, scale, bias, channels_last=last)
    same(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    if plain:
        same(got, u8.permute(0, 3, 1, 2) / 255)
        same(ops.float_to_pixels(got), u8)


@settings(max_examples=80, deadline=None)
@given(shape=SIZES, last=st.booleans(), seed=st.integers(0, 2**32))
def test_float_to_pixels_equals_reference(shape: tuple[int, int, int, int], last: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, height, width, channels = shape
    x = torch.rand(n, channels, height, width, generator=generator) * 1.5 - 0.25
    x.masked_fill_(torch.rand(x.shape, generator=generator) < 0.1, torch.nan)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    same(ops.float_to_pixels(x), reference.float_to_pixels(x))


@pytest.mark.parametrize("last", [False, True])
def test_every_byte_is_divided_exactly(last: bool) -> None:  # csrc multiplies: step.h, per_255
    u8, ones = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3), torch.ones(3)
    got = ops.pixels_to_float(u8.contiguous(), ones, ones * 0, channels_last=last)
    same(got, u8.permute(0, 3, 1, 2).float() / 255)


def test_half_levels_round_to_even_and_the_rest_saturates() -> None:
    levels = torch.tensor([0.5, 1.5, 2.5, -3.0, 300.0, torch.nan, torch.inf, -torch.inf])
    x = (levels / 255).view(1, 1, 1, 8)
    assert ((x * 255).flatten()[:3] == levels[:3]).all()  # exact halves, or the test says nothing
    assert ops.float_to_pixels(x).flatten().tolist() == [0, 2, 2, 0, 255, 0, 255, 0]


@pytest.mark.parametrize("last", [False, True])
def test_threads_do_not_change_pixels(last: bool, two_threads: None) -> None:  # noqa: ARG001
    u8, ones = torch.randint(0, 256, (3, 150, 151, 3), dtype=torch.uint8), torch.ones(3)
    several = ops.pixels_to_float(u8, ones, ones, channels_last=last)
    back = ops.float_to_pixels(several - 1)
    torch.set_num_threads(1)
    same(ops.pixels_to_float(u8, ones, ones, channels_last=last), several)
    same(ops.float_to_pixels(several - 1), back)
