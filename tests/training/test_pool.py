"""The history of generated pictures, Shrivastava et al. 2017."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.training.pool import Pool


def pictures(first: int, n: int) -> torch.Tensor:
    """Pictures that can be told apart: each is its number all over."""
    return torch.arange(first, first + n).float().view(n, 1, 1, 1).expand(n, 1, 2, 2).clone()


def numbers(x: torch.Tensor) -> list[int]:
    return [int(number) for number in x[:, 0, 0, 0]]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_while_there_is_room_new_ones_are_kept_and_shown() -> None:
    pool = Pool(5, (1, 2, 2))
    assert numbers(pool.exchange(pictures(1, 4), rng())) == [1, 2, 3, 4]
    assert numbers(pool.pictures[: int(pool.held)]) == [1, 2, 3, 4]


@given(size=st.integers(0, 6), passes=st.integers(1, 6), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_no_picture_is_lost_or_shown_twice(size: int, passes: int, n: int, seed: int) -> None:
    pool, source, shown = Pool(size, (1, 2, 2)), rng(seed), []
    for i in range(passes):
        shown += numbers(pool.exchange(pictures(1 + i * n, n), source))
    kept = numbers(pool.pictures[: int(pool.held)])
    everything = set(range(1, 1 + passes * n))
    assert len(shown) == passes * n
    assert set(shown) | set(kept) == everything
    assert len(kept) == min(size, passes * n)
    late = shown[size:]  # those shown while the pool filled may be shown again, once, out of it
    assert len(set(late)) == len(late)


def test_half_of_what_is_shown_is_old() -> None:
    pool, source = Pool(50, (1, 2, 2)), rng()
    pool.exchange(pictures(0, 50), source)
    new = pictures(50, 2000)
    same = (pool.exchange(new, source) == new).flatten(1).all(1).float().mean().item()
    assert abs(same - 0.5) < 4 * 0.5 / 2000**0.5


def test_a_pool_of_none_shows_what_is_new() -> None:
    assert numbers(Pool(0, (1, 2, 2)).exchange(pictures(1, 3), rng())) == [1, 2, 3]


def test_a_pool_outlasts_a_cut() -> None:
    pool, source = Pool(3, (1, 2, 2)), rng(1)
    pool.exchange(pictures(1, 8), source)
    other = Pool(3, (1, 2, 2))
    other.load_state_dict(pool.state_dict())
    assert numbers(other.exchange(pictures(9, 9), rng(2))) == numbers(pool.exchange(pictures(9, 9), rng(2)))


def test_what_was_given_stays_as_it_was() -> None:
    pool, source = Pool(2, (1, 2, 2)), rng()
    new = pictures(1, 9)
    pool.exchange(new, source)
    assert torch.equal(new, pictures(1, 9))
