"""The area under the curve, and how sure it is."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve  # type: ignore[import-untyped]

from iguana_server.metrics.roc import auc, curve

scores = st.lists(st.integers(-5, 5), min_size=2, max_size=30).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)


@given(scores, scores)
def test_it_is_that_of_all_pairs_and_of_scikit_learn(positive: torch.Tensor, negative: torch.Tensor) -> None:
    found = auc(positive, negative)
    pairs = (positive[:, None] - negative[None]).sign().add(1).div(2)
    assert found.value == pytest.approx(pairs.mean().item(), abs=1e-12)
    assert found.low <= found.value <= found.high
    labels = [1] * len(positive) + [0] * len(negative)
    both = torch.cat([positive, negative]).numpy()
    assert found.value == pytest.approx(roc_auc_score(labels, both), abs=1e-12)
    x, y = curve(positive, negative)
    want_x, want_y, _ = roc_curve(labels, both, drop_intermediate=False)
    assert x.tolist() == pytest.approx(want_x.tolist())
    assert y.tolist() == pytest.approx(want_y.tolist())
    # DeLong's own form: variances of each row's and each column's mean over the pairs
    error = (pairs.mean(1).var() / len(positive) + pairs.mean(0).var() / len(negative)).sqrt().item()
    assert found.high == pytest.approx(min(1, found.value + 1.959963985 * error), abs=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = NormalDist().cdf(1 / 2**0.5)
    held = 0
    for _ in range(400):
        found = auc(torch.randn(80, generator=rng) + 1, torch.randn(60, generator=rng))
        held += found.low <= truth <= found.high
    assert 0.91 < held / 400 < 0.98
