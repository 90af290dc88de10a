"""Noise is Philox4x32-10, a pure function of its counters, and looks like noise."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iguana_server import ops
from iguana_server.ops import reference

from .calls import same

Key = tuple[Tensor, Tensor, Tensor, Tensor]
Noise = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
NOISES: list[Noise] = [ops.philox_uniform, ops.philox_normal]
WORDS = st.integers(0, 2**32 - 1)
SEEDS = st.integers(-(2**63), 2**63 - 1)

# Random123's kat_vectors: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexes(text: str) -> list[Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


def key(n: int, first: int = 0) -> Key:
    """Seed, sample, restart and step of rows that differ in their sample only."""
    return torch.full((n,), 7), torch.arange(first, first + n), torch.full((n,), 3), torch.full((n,), 1)


@pytest.mark.parametrize(("counter", "words", "result"), KNOWN)
def test_reference_gives_the_published_words(counter: str, words: str, result: str) -> None:
    assert reference.philox(hexes(counter), hexes(words)) == hexes(result)


def test_native_gives_the_published_words() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    want = torch.cat([word >> 8 for word in hexes(KNOWN[0][2])]) / 2**24
    same(ops.philox_uniform(zero, zero, zero, zero, 4)[0], want)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(SEEDS, WORDS, WORDS, WORDS), max_size=4),
    numel=st.one_of(st.integers(0, 40), st.sampled_from([16383, 16385, 40000])),
)
def test_noise_equals_reference(rows: list[tuple[int, int, int, int]], numel: int) -> None:
    seed, sample, restart, step = (
        torch.tensor([row[k] for row in rows], dtype=torch.int64) for k in range(4)
    )
    columns = (seed, sample, restart, step)
    same(ops.philox_uniform(*columns, numel), reference.philox_uniform(*columns, numel))
    normal = ops.philox_normal(*columns, numel)
    torch.testing.assert_close(normal, reference.philox_normal(*columns, numel), rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_row_of_noise_depends_on_its_counters_alone(noise: Noise) -> None:
    batch = noise(*key(5), 20001)
    for row in range(5):
        same(noise(*key(1, first=row), 20001)[0], batch[row])
        same(noise(*key(1, first=row), 11)[0], batch[row, :11])


@pytest.mark.parametrize("noise", NOISES)
def test_threads_do_not_change_noise(noise: Noise, two_threads: None) -> None:  # noqa: ARG001
    several = noise(*key(3), 50001)
    torch.set_num_threads(1)
    same(noise(*key(3), 50001), several)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("noise", NOISES)
def test_every_counter_matters(noise: Noise, place: int) -> None:
    columns = key(1)
    before = noise(*columns, 1000)
    columns[place].add_(1)
    assert float((noise(*columns, 1000) == before).float().mean()) < 0.01


def test_uniform_is_uniform() -> None:
    u = ops.philox_uniform(*key(8), 100_000).double()
    assert 0 <= float(u.min()) < 1e-4
    assert 1 - 1e-4 < float(u.max()) < 1
    n = u.numel()
    assert abs(float(u.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / n)
    expected = n / 256
    counts = torch.histc(u, 256, 0, 1)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255)
    neighbours = (u[:, 1:] - 0.5) * (u[:, :-1] - 0.5)
    assert abs(float(neighbours.mean())) < 5 / 12 / math.sqrt(n)


def test_normal_is_normal() -> None:
    z = ops.philox_normal(*key(8), 100_000).double()
    n = z.numel()
    assert bool(torch.isfinite(z).all())
    assert float(z.abs().max()) < 5.8
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 5 * math.sqrt(variance / n)
    for quantile in (-2.0, -1.0, 0.0, 1.0, 2.0):
        want = 0.5 * (1 + math.erf(quantile / math.sqrt(2)))
        assert abs(float((z < quantile).double().mean()) - want) < 5 * math.sqrt(want * (1 - want) / n)
    assert abs(float((z[:, ::2] * z[:, 1::2]).mean())) < 5 / math.sqrt(n / 2)
