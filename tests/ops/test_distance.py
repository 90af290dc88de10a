"""The distance between two images, a row at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server import ops
from iguana_server.ops import reference

from .calls import same


def pair(shape: tuple[int, ...], *, last: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if last else torch.contiguous_format
    x, x0 = (torch.rand(shape, generator=generator).contiguous(memory_format=layout) for _ in range(2))
    return x, x0


@given(n=st.integers(0, 4), side=st.integers(0, 90), last=st.booleans(), seed=st.integers(0, 2**32))
def test_distance_equals_reference(n: int, side: int, last: bool, seed: int) -> None:
    x, x0 = pair((n, 3, side, side), last=last, seed=seed)
    got = ops.l2_distance(x, x0)
    assert got.shape == (n,)
    torch.testing.assert_close(got, reference.l2_distance(x, x0), rtol=2e-7, atol=0)
    assert not ops.l2_distance(x, x.clone()).any()


def test_row_alone_and_threads_do_not_change_a_bit(two_threads: None) -> None:  # noqa: ARG001
    x, x0 = pair((3, 3, 111, 113), last=True, seed=1)
    together = ops.l2_distance(x, x0)
    torch.set_num_threads(1)
    for row in range(3):
        same(ops.l2_distance(x[row : row + 1], x0[row : row + 1])[0], together[row])


def test_nan_stays_in_its_row() -> None:
    x, x0 = pair((3, 1, 4, 4), last=False, seed=2)
    x[1, 0, 2, 2] = torch.nan
    assert torch.isnan(ops.l2_distance(x, x0)).tolist() == [False, True, False]


def test_another_layout_is_refused_by_name() -> None:
    x, x0 = pair((2, 3, 4, 5), last=False, seed=3)
    with pytest.raises(RuntimeError, match=r"^iguana::l2_distance: x0: want the layout of x, "):
        ops.l2_distance(x, x0.contiguous(memory_format=torch.channels_last))
