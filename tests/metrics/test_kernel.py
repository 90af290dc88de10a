"""The kernel distance: without bias, so around zero for likes, and never cut off there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iguana_server.metrics.kernel import kernel_distance, mmd2
from tests.metrics import references


def drawn(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_that_of_the_libraries() -> None:
    a, b = drawn(600, 32, 1), drawn(500, 32, 2) * 1.2 + 0.2
    fidelity = references.load("torch_fidelity.metric_kid")
    theirs = fidelity.kid_features_to_metric(
        a, b, kid_subsets=20, kid_subset_size=300, rng_seed=3, verbose=False
    )
    assert kernel_distance(a, b, subsets=20, size=300, seed=3) == pytest.approx(
        tuple(theirs.values()), rel=1e-10
    )
    metrics = references.load("torchmetrics.image.kid")
    assert mmd2(a[:500], b) == pytest.approx(float(metrics.poly_mmd(a[:500], b)), rel=1e-10)


def test_a_whole_set_is_one_subset_to_clean_fid_as_well() -> None:
    a, b = drawn(300, 16, 1), drawn(300, 16, 2) + 0.5
    theirs = references.load("cleanfid.fid").kernel_distance(
        a.numpy(), b.numpy(), num_subsets=1, max_subset_size=300
    )
    assert kernel_distance(a, b, subsets=1, size=300)[0] == pytest.approx(theirs, rel=1e-10)


def test_likes_are_around_zero_and_may_be_below() -> None:
    a = drawn(2000, 64, 1)
    values = [kernel_distance(a, a, subsets=1, size=100, seed=seed)[0] for seed in range(40)]
    assert min(values) < 0 < max(values)
    far = kernel_distance(a, a + 0.5, subsets=5, size=100)[0]
    assert abs(sum(values) / len(values)) < far / 20


@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_it_is_symmetric_and_does_not_mind_the_order(n: int, d: int, seed: int) -> None:
    a, b = drawn(n, d, seed), drawn(n, d, seed + 1)
    turned = torch.linalg.qr(drawn(d, d, seed + 2)).Q
    assert mmd2(a, b) == pytest.approx(mmd2(b, a), rel=1e-9, abs=1e-9)
    assert mmd2(a.flip(0) @ turned, b @ turned) == pytest.approx(mmd2(a, b), rel=1e-8, abs=1e-8)


def test_subsets_larger_than_a_side_are_refused() -> None:
    with pytest.raises(ValueError, match="size: want 2 to 9 rows"):
        kernel_distance(drawn(10, 2, 0), drawn(9, 2, 0), size=10)
