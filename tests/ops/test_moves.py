"""The moves do what reference.py says, a row at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iguana_server import ops
from iguana_server.ops import reference

from .calls import MOVES, Move, clones, same

SIZES = st.one_of(
    st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(
        [(2, 3, 80, 80), (1, 1, 129, 129), (3, 1, 32, 32)]
    ),  # past a chunk, past a block, one block
)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
@settings(max_examples=40, deadline=None)
@given(shape=SIZES, last=st.booleans(), finite=st.booleans(), seed=st.integers(0, 2**32))
def test_move_equals_reference(
    move: Move, shape: tuple[int, int, int, int], last: bool, finite: bool, seed: int
) -> None:
    arguments = move.arguments(shape, last=last, seed=seed, finite=finite)
    got, want = clones(arguments), clones(arguments)
    move.native(*got)
    move.reference(*want)
    for k in range(move.moved):
        if move.exact:
            same(got[k], want[k])
        else:  # a norm or mean may be one float32 bit off, and what is scaled by it is below 8
            torch.testing.assert_close(got[k], want[k], rtol=3e-7, atol=1e-6, equal_nan=True)
    for k in range(move.moved, len(arguments)):
        same(got[k], arguments[k])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_row_alone_equals_row_in_batch(move: Move, last: bool) -> None:
    arguments = move.arguments((5, 3, 75, 80), last=last, seed=1, finite=False)
    batch = clones(arguments)
    move.native(*batch)
    for row in range(5):
        alone = [one[row : row + 1].clone() for one in arguments]
        move.native(*alone)
        for k in range(move.moved):
            same(alone[k][0], batch[k][row])


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_threads_do_not_change_a_bit(move: Move, two_threads: None) -> None:  # noqa: ARG001
    arguments = move.arguments((3, 3, 111, 113), last=False, seed=2)
    several, one = clones(arguments), clones(arguments)
    move.native(*several)
    torch.set_num_threads(1)
    move.native(*one)
    for k in range(move.moved):
        same(several[k], one[k])


def test_vectors_of_any_rank_are_images() -> None:
    move = MOVES[0]
    for shape in ((4,), (4, 7), (2, 3, 4, 5, 6)):
        arguments = move.arguments(shape, last=False, seed=3)
        got, want = clones(arguments), clones(arguments)
        move.native(*got)
        move.reference(*want)
        same(got[0], want[0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), epsilon=st.floats(0, 10, width=32), alpha=st.floats(-10, 10, width=32))
def test_l2_step_stays_in_ball(seed: int, epsilon: float, alpha: float) -> None:
    x, x0, d, _, _ = MOVES[1].arguments((3, 3, 16, 16), last=False, seed=seed)
    ops.l2_step_(x, x0, d, torch.full((3,), epsilon), torch.full((3,), alpha))
    distance = (x - x0).double().flatten(1).norm(dim=1)
    assert float(distance.max()) <= epsilon * (1 + 1e-5) + 1e-5
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_l2_step_has_the_length_asked_for() -> None:
    x0 = torch.full((1, 1, 10, 10), 0.5)
    d = torch.zeros_like(x0)
    d[0, 0, 0, :2] = torch.tensor([3.0, 4.0])
    x = x0.clone()
    ops.l2_step_(x, x0, d, torch.ones(1), torch.tensor([0.1]))
    torch.testing.assert_close(x[0, 0, 0, :2], torch.tensor([0.56, 0.58]))


def test_sums_do_not_lose_small_terms() -> None:
    g = torch.full((1, 1, 2048, 2048), 1e-4)
    g[0, 0, 0, 0] = 2.0**20  # in float32 a sum that starts here would not see the others
    m = torch.zeros_like(g)
    ops.momentum_(m, g, torch.ones(1))
    mean = (2.0**20 + 1e-4 * (2048**2 - 1)) / 2048**2
    assert float(m[0, 0, 0, 1]) == pytest.approx(1e-4 / mean, rel=1e-6)


def test_zero_gradient_leaves_momentum_to_decay() -> None:
    m, g = torch.ones(2, 3), torch.zeros(2, 3)
    ops.momentum_(m, g, torch.tensor([0.5, 1.0]))
    same(m, torch.tensor([[0.5] * 3, [1.0] * 3]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_row_leaves_the_others_alone(bad: float) -> None:
    for move in MOVES:
        arguments = move.arguments((3, 1, 8, 8), last=False, seed=4)
        spoilt = clones(arguments)
        for image in spoilt[: move.moved + move.read]:
            image[1, 0, 3, 3] = bad
        move.native(*arguments)
        move.native(*spoilt)
        for k in range(move.moved):
            same(spoilt[k][::2], arguments[k][::2])


def test_forge_by_adam_descends_and_keeps_the_moments_of_sign_rows() -> None:
    x, target = torch.full((2, 4), 0.2), torch.tensor([0.7, 0.1, 0.5, 0.9])
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    x_ref, adam = x.clone(), torch.tensor([True, False])
    for t in range(1, 200):
        steps = torch.full((2,), t)
        ops.forge_step_(x, m, v, x_ref, 2 * (x - target), steps, torch.full((2,), 0.01), torch.zeros(2), adam)
    assert float((x - target).abs().max()) < 0.02
    assert not m[1].any()
    assert not v[1].any()


def on_grid(x: Tensor) -> bool:
    """Whether x is k / 255 exactly."""
    return bool(((x * 255).round() / 255 == x).all())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), epsilon=st.integers(0, 32), off=st.booleans())
def test_grid_stays_in_ball_and_box(seed: int, epsilon: int, off: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    k0 = torch.randint(0, 256, (4, 50), generator=generator)
    x0 = torch.rand(4, 50, generator=generator) if off else k0 / 255
    x = x0 + (torch.rand(4, 50, generator=generator) - 0.5) * 0.5
    ops.grid_(x, x0, torch.full((4,), epsilon / 255))
    assert on_grid(x)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    # 1e-3 of a level is forgiven; without a level in the ball, half a level is the nearest
    most = max(epsilon, 0.5 if off else 0) + 2e-3
    assert float((x - x0).abs().max()) * 255 <= most


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 1.0, 1e4, math.nan])
def test_grid_of_huge_values_equals_reference(epsilon: float) -> None:  # beyond where csrc rounds exactly
    ends = torch.cat([sign * torch.logspace(-8, 38, 400) for sign in (-1, 1)])
    ends = torch.cat([ends, torch.tensor([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan])])
    x, x0 = (one.clone().view(1, -1) for one in torch.cartesian_prod(ends, ends).unbind(1))
    want = x.clone()
    column = torch.tensor([epsilon])
    reference.grid_(want, x0, column)
    ops.grid_(x, x0, column)
    same(x, want)


def test_every_byte_survives_grid() -> None:
    x0 = torch.arange(256).view(1, 256) / 255
    x = x0.clone()
    ops.grid_(x, x0, torch.zeros(1))
    same(x, x0)
    same(ops.float_to_pixels(x.view(1, 1, 1, 256)).flatten(), torch.arange(256, dtype=torch.uint8))
