"""The slope that an attack descends is never below what a picture is judged by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.suspicion import Suspicion
from iguana_server.errors import InvalidArgument
from tests.detectors.test_calibration import drawn, of


def judged(calibrated: Calibration, scores: dict[str, float]) -> float:
    """Fisher's sum, from its definition: the share of clean scores that are no lower, this one among them."""
    n = calibrated.pictures
    return float(
        sum(
            -np.log((1 + (calibrated.scores[name] >= np.float32(score)).sum()) / (n + 1))
            for name, score in scores.items()
        )
    )


def told(suspicion: Suspicion, scores: dict[str, float]) -> float:
    return float(suspicion({name: torch.tensor([score]) for name, score in scores.items()})[0])


numbers = st.floats(-1e4, 1e4, width=32)


@given(st.integers(19, 3000), st.integers(0, 2**32), numbers, numbers, st.booleans())
def test_no_picture_is_less_suspicious_than_it_will_be_judged(
    n: int, seed: int, one: float, other: float, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    calibrated = of(rng.integers(-3, 9, (n, 2)).astype(np.float32) if ties else drawn(rng, n))
    scores = {"squeeze": one, "transform": other}
    suspicion = Suspicion(calibrated, list(scores))
    assert told(suspicion, scores) >= judged(calibrated, scores) - 1e-4
    clean = {name: float(column[0]) for name, column in calibrated.scores.items()}
    assert told(suspicion, clean) >= judged(calibrated, clean) - 1e-4


@given(st.integers(19, 1000), st.integers(0, 2**32), st.floats(0.06, 0.5))
def test_what_is_under_the_limit_is_not_flagged(n: int, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    calibrated = of(drawn(rng, n))
    suspicion = Suspicion(calibrated, ["squeeze", "transform"])
    most = calibrated.allowed(rate) / (n + 1)
    for new in drawn(rng, 30):
        scores = {"squeeze": float(new[0]), "transform": float(new[1])}
        if told(suspicion, scores) <= suspicion.limit(rate):
            assert calibrated.joint(scores) > most


def test_most_clean_pictures_are_under_the_limit() -> None:
    """Else the slope would be of no use: with 1,000 it costs less than a point of the rate."""
    rng = np.random.default_rng(0)
    calibrated = of(drawn(rng, 1000))
    suspicion = Suspicion(calibrated, ["squeeze", "transform"])
    new = drawn(rng, 3000)
    under = suspicion({"squeeze": torch.from_numpy(new[:, 0]), "transform": torch.from_numpy(new[:, 1])})
    assert (under > suspicion.limit(0.05)).float().mean() < 0.065


def test_the_slope_leads_down_wherever_a_score_is_above_all_but_the_lowest() -> None:
    calibrated = of(drawn(np.random.default_rng(0), 500))
    suspicion = Suspicion(calibrated, ["squeeze"])
    lowest, highest = calibrated.ordered["squeeze"][[0, -1]]
    score = torch.linspace(float(lowest) * 1.5, float(highest) * 3, 400).requires_grad_()
    (slope,) = torch.autograd.grad(suspicion({"squeeze": score}).sum(), score)
    assert (slope > 0).all()
    assert (suspicion({"squeeze": score}).diff() > 0).all()


def test_a_score_that_is_no_number_is_infinitely_far_from_passing() -> None:
    suspicion = Suspicion(of(drawn(np.random.default_rng(0), 50)), ["squeeze"])
    assert torch.isnan(suspicion({"squeeze": torch.tensor([torch.nan])})).all()


@pytest.mark.parametrize("rate", [0.001, 0.6])
def test_a_rate_that_the_calibration_cannot_vouch_for_is_refused(rate: float) -> None:
    suspicion = Suspicion(of(drawn(np.random.default_rng(0), 50)), ["squeeze"])
    with pytest.raises(InvalidArgument, match=r"want 0\.0196"):
        suspicion.limit(rate)
