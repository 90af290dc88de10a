"""Codes of seeds: the seed decides, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iguana_server.generators.codes import from_seeds, labels_of

SEED = st.integers(0, 2**64 - 1)


@settings(max_examples=30)
@given(st.lists(SEED, min_size=1, max_size=8), st.integers(1, 40))
def test_a_seed_has_the_same_code_in_any_company(seeds: list[int], latent: int) -> None:
    together = from_seeds(seeds, latent)
    for seed, code in zip(seeds, together, strict=True):
        assert torch.equal(from_seeds([seed], latent)[0], code)
    assert torch.equal(labels_of(seeds, 7), torch.cat([labels_of([seed], 7) for seed in seeds]))


def test_codes_are_normal() -> None:
    z = from_seeds(range(2000), 100).double()
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs((z**4).mean() - 3) < 0.1
    assert z[:-1].mul(z[1:]).mean().abs() < 0.01  # seeds that are neighbours have nothing in common


def test_tries_of_a_seed_differ() -> None:
    assert not torch.equal(from_seeds([1], 9), from_seeds([1], 9, restart=1))


def test_seeds_below_and_above_the_sign_differ() -> None:
    assert (
        len({tuple(from_seeds([seed], 3)[0].tolist()) for seed in (0, 1, 2**63, 2**63 + 1, 2**64 - 1)}) == 5
    )


@pytest.mark.parametrize("truncation", [0.1, 0.5, 2.0])
def test_truncated_codes_have_the_truncated_normal_distribution(truncation: float) -> None:
    plain, cut = from_seeds(range(2000), 100), from_seeds(range(2000), 100, truncation=truncation)
    assert cut.abs().max() <= truncation
    kept = plain.abs() <= truncation
    assert torch.equal(cut[kept], plain[kept])  # less variety, but the same picture
    density = math.exp(-(truncation**2) / 2) / math.sqrt(2 * math.pi)
    share = math.erf(truncation / math.sqrt(2))
    variance = 1 - 2 * truncation * density / share  # Johnson, Kotz & Balakrishnan 1994, 13.10
    assert abs(cut.double().var().item() / variance - 1) < 0.02
    assert abs(cut[~kept].double().var().item() / variance - 1) < 0.03


def test_labels_are_uniform() -> None:
    counts = labels_of(range(10_000), 10).bincount(minlength=10)
    assert counts.sum() == 10_000
    assert (counts - 1000).abs().max() < 130
