"""The false-positive rate is what it says, for one detector and for several together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from iguana_server.detectors import calibration
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.net import SafetyNet, Screen, load_net
from iguana_server.errors import InvalidArgument, ModelRefused
from iguana_server.training.detector import calibrate
from tests.rpc.service import small_model


def drawn(rng: np.random.Generator, n: int, correlation: float = 0.5) -> np.ndarray:
    """Scores of clean pictures by two detectors of unlike units that agree somewhat."""
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, 2))
    return (np.exp(correlation * common + own) * [1, 1000]).astype(np.float32)


def of(scores: np.ndarray, rate: float = 0.05) -> Calibration:
    columns = {"squeeze": scores[:, 0].copy(), "transform": scores[:, 1].copy()}
    return Calibration("small", "a1" * 32, "drawn", rate, columns, {name: {} for name in columns})


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("correlation", [0.0, 3.0])
def test_clean_pictures_are_flagged_at_the_rate(rate: float, correlation: float) -> None:
    """Over many calibrations; together as alone."""
    rng = np.random.default_rng(1)
    flagged: dict[str, list[bool]] = {"squeeze": [], "transform": [], "joint": []}
    for _ in range(60):
        calibrated = of(drawn(rng, 299, correlation))
        for new in drawn(rng, 60, correlation):
            scores = {"squeeze": float(new[0]), "transform": float(new[1])}
            for name, score in scores.items():
                flagged[name].append(score > calibrated.threshold(name, rate))
            flagged["joint"].append(calibrated.joint(scores) <= rate + 1e-9)
    for name, verdicts in flagged.items():
        assert np.mean(verdicts) == pytest.approx(rate, abs=4 * (rate / len(verdicts)) ** 0.5 + 0.006), name


@given(st.integers(19, 200), st.floats(0.05, 0.5), st.integers(0, 2**32))
def test_threshold_and_p_value_say_the_same(n: int, rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibrated = of(rng.integers(0, 9, (n, 2)).astype(np.float32))
    for score in (-1.0, 0.0, 3.0, 7.5, 8.0, 9.0):
        over = score > calibrated.threshold("squeeze", rate)
        assert over == (calibrated.p_value("squeeze", score) * (n + 1) <= calibrated.allowed(rate) + 1e-6)


@given(st.integers(19, 100), st.integers(0, 2**32))
def test_one_detector_together_with_none_is_itself(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibrated = of(drawn(rng, n))
    score = float(drawn(rng, 1)[0, 0])
    assert calibrated.joint({"squeeze": score}) == pytest.approx(calibrated.p_value("squeeze", score))


@given(st.integers(19, 100), st.integers(0, 2**32))
@example(33, 17342605)
def test_joint_rank_is_that_among_all_pictures(n: int, seed: int) -> None:
    """By the definition: each of the n + 1 pictures ranked alike."""
    rng = np.random.default_rng(seed)
    clean, new = drawn(rng, n), drawn(rng, 1)
    everyone = np.concatenate([clean, new])
    lower = (everyone[None] < everyone[:, None]).sum(1)  # [n + 1, 2]
    suspicion = -np.log((n + 1 - lower) / (n + 1)).sum(1)
    want = (suspicion >= suspicion[-1] - 1e-12).mean()  # ranks that have changed places are a tie
    scores = {"squeeze": float(new[0, 0]), "transform": float(new[0, 1])}
    assert of(clean).joint(scores) == pytest.approx(want)
    worst = dict.fromkeys(scores, 1000000000.0)
    assert of(clean).joint(worst) == pytest.approx(1 / (n + 1))


@pytest.mark.parametrize("rate", [0.009, 0.51, float("nan"), -1.0])
def test_a_rate_that_the_pictures_cannot_vouch_for_is_refused(rate: float) -> None:
    with pytest.raises(
        InvalidArgument, match=r"false_positive_rate: want 0.01 \(of 99 clean pictures\) to 0.5"
    ):
        of(drawn(np.random.default_rng(0), 99)).allowed(rate)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    model = small_model()
    x = torch.rand(50, *model.spec.shape, generator=torch.Generator().manual_seed(0))
    made = calibrate(
        model, x, data="noise", rate=0.1, fit_on=(torch.rand(60, *model.spec.shape), torch.arange(60) % 5)
    )
    assert {"squeeze", "transform", "mahalanobis", "lid"} <= set(made.scores)
    made.write(tmp_path / "a.safetensors")
    net = load_net(tmp_path / "a.safetensors", model)
    again = net.calibration
    assert (again.model, again.data, again.rate, again.pictures) == ("small", "noise", 0.1, 50)
    scores = net.screen((), 0).panel.examine(model, x)
    for name, clean in made.scores.items():
        assert np.array_equal(again.scores[name], clean)
        assert np.array_equal(scores[name].numpy(), clean)


def test_another_models_calibration_is_refused() -> None:
    made = of(drawn(np.random.default_rng(0), 50))
    with pytest.raises(ModelRefused, match="want detectors calibrated for small"):
        SafetyNet(small_model(), replace(made, model_sha256="b2" * 32), "")
    with pytest.raises(ModelRefused, match="want detectors of"):
        SafetyNet(small_model(), replace(made, scores={"x": made.scores["squeeze"]}, states={"x": {}}), "")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ModelRefused, match=r"a.safetensors: want a file of iguana-server calibrate"):
        calibration.read(path)


def test_detectors_are_chosen_by_name_once() -> None:
    net = SafetyNet(small_model(), of(drawn(np.random.default_rng(0), 99)), "")
    screen = net.screen(("transform",), 0.1)
    assert isinstance(screen, Screen)
    assert [one.name for one in screen.panel.detectors] == ["transform"]
    assert screen.rate == 0.1
    with pytest.raises(
        InvalidArgument,
        match=r"detectors\[1\]: want one of squeeze, transform, got 'sqeeze' \(close: squeeze\)",
    ):
        net.screen(("transform", "sqeeze"), 0)
    with pytest.raises(InvalidArgument, match=r"detectors\[1\]: want each detector once"):
        net.screen(("squeeze", "squeeze"), 0)
