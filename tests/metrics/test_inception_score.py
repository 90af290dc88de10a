"""The inception score: what it must be, and how the splits change it."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iguana_server.metrics.inception_score import inception_score
from tests.metrics import references


def sure(classes: Tensor, k: int) -> Tensor:
    """Logits that are certain of the classes."""
    return torch.nn.functional.one_hot(classes, k).double() * 1000


def logits(n: int, k: int, seed: int) -> Tensor:
    return 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [10, 1000])
def test_every_class_alike_and_surely_is_their_number(k: int) -> None:
    assert inception_score(sure(torch.arange(k), k), splits=1)[0] == pytest.approx(k, rel=1e-12)


def test_nothing_to_tell_is_one() -> None:
    assert inception_score(torch.zeros(50, 10), splits=1)[0] == pytest.approx(1)
    assert inception_score(sure(torch.full((50,), 3), 10), splits=1)[0] == pytest.approx(1)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_it_is_that_of_the_libraries(splits: int) -> None:
    x = logits(2003, 10, 4)
    ours = inception_score(x, splits=splits)
    theirs = references.load("torch_fidelity.metric_isc").isc_features_to_metric(x, splits, shuffle=False)
    assert ours == pytest.approx(tuple(theirs.values()), rel=1e-12)
    y = x[:2000]  # torchmetrics shuffles, and cuts otherwise: of one split, the same
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # that it keeps all features, and of the deviation of one
        metric = references.load("torchmetrics.image.inception").InceptionScore(
            feature=torch.nn.Identity(), splits=1
        )
        metric.update(y.float())
        whole = float(metric.compute()[0])
    assert inception_score(y, splits=1)[0] == pytest.approx(whole, rel=1e-5)


def test_it_is_exp_of_the_entropies() -> None:
    x = logits(500, 10, 7)
    p = x.softmax(1)
    whole, each = torch.special.entr(p.mean(0)).sum(), torch.special.entr(p).sum(1).mean()
    assert inception_score(x, splits=1)[0] == pytest.approx((whole - each).exp().item(), rel=1e-12)


def test_a_perfect_set_loses_by_splits() -> None:
    classes = (torch.arange(5000) % 1000)[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    perfect = sure(classes, 1000)
    assert inception_score(perfect, splits=1)[0] == pytest.approx(1000)
    assert inception_score(perfect, splits=10)[0] == pytest.approx(386.0, rel=0.02)


@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 2**31))
def test_it_is_between_one_and_the_classes(n: int, k: int, seed: int) -> None:
    for splits in {1, min(3, n)}:
        mean, deviation = inception_score(logits(n, k, seed), splits=splits)
        assert 1 - 1e-9 <= mean <= min(k, n) + 1e-9
        assert deviation >= 0


@pytest.mark.parametrize("splits", [0, 11])
def test_splits_that_cannot_be_are_refused(splits: int) -> None:
    with pytest.raises(ValueError, match="splits: want 1 to n"):
        inception_score(torch.zeros(10, 3), splits=splits)
