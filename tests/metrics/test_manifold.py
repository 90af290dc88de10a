"""Neighbours, and precision and recall, which are made of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iguana_server.metrics import manifold
from iguana_server.metrics.manifold import precision_recall
from iguana_server.metrics.nearest import BASE, QUERIES, nearest
from tests.metrics import references


def drawn(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_those_of_all_pairs_across_blocks() -> None:
    queries, base = drawn(QUERIES + 3, 5, 1), drawn(BASE + 7, 5, 2)
    distances, rows = nearest(queries, base, 3)
    pairs = torch.cdist(queries.double(), base.double(), compute_mode="donot_use_mm_for_euclid_dist")
    want = pairs.topk(3, 1, largest=False)
    assert torch.equal(rows, want.indices)
    assert torch.allclose(distances, want.values, rtol=1e-12)


def test_a_copy_is_found_at_zero_however_far_from_the_origin() -> None:
    base = drawn(100, 20, 1) + 1000
    distances, rows = nearest(base[[7, 30]], base)
    assert rows.flatten().tolist() == [7, 30]
    assert distances.flatten().tolist() == [0, 0]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_precision_and_recall_are_those_of_torch_fidelity(k: int) -> None:
    made, real = drawn(700, 6, 1) * 0.7 + 0.3, drawn(500, 6, 2)
    theirs = references.load("torch_fidelity.metric_prc").prc_features_to_metric(
        made.double(), real.double(), prc_neighborhood=k, verbose=False
    )
    want = theirs["precision"], theirs["recall"]
    assert precision_recall(made, real, k=k) == pytest.approx(want, abs=1e-6)


def test_pictures_of_one_kind_are_precise_and_recall_little() -> None:
    real = drawn(400, 4, 1)
    _, alike = nearest(real[:1], real, 20)
    precision, recall = precision_recall(real[alike[0]] + 1e-4, real)
    assert precision == 1
    assert recall < 0.3
    far = precision_recall(drawn(400, 4, 2) + 100, real)
    assert far == (0, 0)


@given(st.integers(5, 40), st.integers(5, 40), st.integers(0, 2**31))
def test_they_are_shares_and_change_places_with_the_sides(n: int, m: int, seed: int) -> None:
    made, real = drawn(n, 3, seed), drawn(m, 3, seed + 1)
    precision, recall = precision_recall(made, real)
    assert 0 <= precision <= 1
    assert 0 <= recall <= 1
    assert precision_recall(real, made) == (recall, precision)
    assert precision_recall(made, made) == (1, 1)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = drawn(70, 3, 1), drawn(50, 3, 2)
    whole = precision_recall(made, real)
    monkeypatch.setattr(manifold, "ROWS", 9)
    monkeypatch.setattr(manifold, "COLUMNS", 11)
    assert precision_recall(made, real) == whole


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="k: want 1 to 2, got 3"):
        precision_recall(drawn(3, 2, 0), drawn(9, 2, 0))
    with pytest.raises(ValueError, match="k: want 1 to 3, got 4"):
        nearest(drawn(3, 2, 0), drawn(3, 2, 0), 4)
