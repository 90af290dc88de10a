"""The Frechet distance against closed forms, four libraries, and its own bias."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iguana_server.metrics import frechet
from iguana_server.metrics.frechet import Moments
from tests.metrics import references


def drawn(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean: Tensor, sd: Tensor, n: int = 400) -> Tensor:
    """Rows whose mean and diagonal covariance are exactly these."""
    x = drawn(n, len(mean), 5)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    rows: Tensor = x * sd + mean
    return rows


def distance(a: Tensor, b: Tensor) -> float:
    return frechet.distance(Moments.of(a), Moments.of(b))


def test_a_set_is_at_no_distance_to_itself() -> None:
    a = drawn(500, 16)
    assert abs(distance(a, a)) < 1e-12


def test_a_shift_is_its_square_in_every_dimension() -> None:
    a = drawn(500, 16)
    assert distance(a, a + 1) == pytest.approx(16.0, rel=1e-12)


def test_one_dimension_is_the_textbook_form() -> None:
    a = with_moments(torch.tensor([1.0]), torch.tensor([2.0]))
    b = with_moments(torch.tensor([4.0]), torch.tensor([3.0]))
    assert distance(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 3) ** 2, rel=1e-12)


def test_diagonals_are_the_sum_of_squared_differences_of_deviations() -> None:
    zero = torch.zeros(3)
    a = with_moments(zero, torch.tensor([1.0, 2.0, 3.0]))
    b = with_moments(zero, torch.tensor([1.0, 4.0, 2.0]))
    assert distance(a, b) == pytest.approx(0 + 4 + 1, rel=1e-12)


@pytest.mark.parametrize(("n", "d", "rel"), [(1000, 64, 1e-12), (20, 64, 1e-7)], ids=["full", "deficient"])
def test_it_is_the_distance_of_four_libraries(n: int, d: int, rel: float) -> None:
    a, b = drawn(n, d, 1), drawn(n, d, 2) * 1.4 + 0.4
    ours = distance(a, b)
    fidelity = references.load("torch_fidelity.metric_fid")
    sides = [fidelity.fid_features_to_statistics(x) for x in (a, b)]
    theirs = {
        "torch-fidelity": fidelity.fid_statistics_to_metric(*sides, verbose=False)[
            "frechet_inception_distance"
        ]
    }
    arrays = [array for side in sides for array in (side["mu"], side["sigma"])]
    tensors = [torch.from_numpy(array) for array in arrays]
    theirs["torchmetrics"] = float(references.load("torchmetrics.image.fid")._compute_fid(*tensors))
    if n > d:  # of deficient ranks, the roots that these take by Schur forms are not finite, or not real
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # scipy's sqrtm(disp=...)
            pytorch_fid = references.load("pytorch_fid.fid_score")
            theirs["pytorch-fid"] = float(pytorch_fid.calculate_frechet_distance(*arrays))
            theirs["clean-fid"] = float(references.load("cleanfid.fid").frechet_distance(*arrays))
    assert theirs == {name: pytest.approx(ours, rel=rel) for name in theirs}


def test_features_may_come_in_parts() -> None:
    x = drawn(3000, 8).float() * 3 + 100
    parts = Moments(8)
    for part in torch.split(x, [1, 7, 1500, 1492]):
        parts.add(part)
    assert parts.n == 3000
    assert torch.allclose(parts.mean, x.double().mean(0), rtol=1e-13)
    assert torch.allclose(parts.covariance, x.double().T.cov(), rtol=1e-10)


def test_the_bias_of_few_pictures_falls_as_one_over_their_number() -> None:
    measured = {n: distance(drawn(n, 64, n), drawn(n, 64, n + 1)) for n in (100, 500, 2000, 8000)}
    assert measured == {
        n: pytest.approx(value, rel=0.1)
        for n, value in {100: 20.97, 500: 4.32, 2000: 1.11, 8000: 0.282}.items()
    }


def test_the_extrapolation_finds_the_distance_of_endlessly_many() -> None:
    real = Moments.of(drawn(100_000, 16, 1))
    made = drawn(4000, 16, 2) * 1.5 + 0.5
    truth = 16 * (0.5**2 + 0.5**2)
    found = frechet.extrapolate(real, made, sizes=frechet.even_sizes(4000), seed=0)
    assert found.bias > 0
    assert abs(found.infinity - truth) < 0.35  # the deviation of the mean of 4000 rows alone is 0.07
    alike = frechet.extrapolate(real, drawn(4000, 16, 3), sizes=frechet.even_sizes(4000), seed=0)
    assert abs(alike.infinity) < alike.distances[-1] / 2


sizes = st.integers(2, 40)
seeds = st.integers(0, 2**31)


@given(sizes, sizes, st.integers(1, 12), seeds)
def test_it_is_symmetric_and_never_below_zero(n: int, m: int, d: int, seed: int) -> None:
    a, b = drawn(n, d, seed), drawn(m, d, seed + 1) * 2 + 1
    forth, back = distance(a, b), distance(b, a)
    assert forth == pytest.approx(back, rel=1e-6, abs=1e-6)
    assert forth > -1e-6


@given(st.integers(2, 12), seeds)
def test_a_rotation_of_both_sides_changes_nothing(d: int, seed: int) -> None:
    a, b = drawn(50, d, seed), drawn(60, d, seed + 1) * 2 + 1
    turn = torch.linalg.qr(drawn(d, d, seed + 2)).Q
    assert distance(a @ turn, b @ turn) == pytest.approx(distance(a, b), rel=1e-9)


def test_what_has_no_distance_is_refused() -> None:
    a = Moments.of(drawn(10, 3))
    with pytest.raises(ValueError, match="want 3 of both sides, got 4"):
        frechet.distance(a, Moments.of(drawn(10, 4)))
    with pytest.raises(ValueError, match="want 2 rows or more, got 1"):
        frechet.distance(a, Moments.of(drawn(1, 3)))
    with pytest.raises(ValueError, match="finite"):
        a.add(torch.tensor([[0.0, math.nan, 0.0]]))
    with pytest.raises(ValueError, match="ascending, from 2 to 10"):
        frechet.extrapolate(a, drawn(10, 3), sizes=[5, 11], seed=0)
    assert np.diff(frechet.even_sizes(1000)).min() > 0
