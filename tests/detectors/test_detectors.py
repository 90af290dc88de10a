"""What every detector keeps to: rows know of no other, scores repeat, views are pictures."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from iguana_server.detectors.base import Clean, Detector, Evidence
from iguana_server.detectors.catalog import available
from iguana_server.detectors.net import SafetyNet
from iguana_server.detectors.panel import Panel
from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model
from iguana_server.models.ensemble import Ensemble
from iguana_server.training.detector import FORGERIES, RADII, attacked, calibrate, features_of
from tests.rpc.service import CLASSES, SHAPE, small_ensemble, small_model

N = 6


@functools.cache
def clean(model: Model, m: int = 60) -> Clean:
    x = torch.rand(m, *model.spec.shape, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        features = features_of(model, x)
    noisy, forged = (attacked(model, x, names) for names in (("noise",), FORGERIES))
    return Clean(features, torch.arange(m) % 5, 5, x, noisy, forged)


def made(name: str, model: Model) -> Detector:
    return available()[name](model.spec, available()[name].fit(clean(model)))


MODELS = {model.spec.name: model for model in (small_model(), small_ensemble())}
PAIRS = [
    (name, model)
    for model in MODELS.values()
    for name, detector in available().items()
    if not detector.check(model)
]
each_pair = pytest.mark.parametrize(
    ("name", "model"), PAIRS, ids=[f"{name}-{model.spec.name}" for name, model in PAIRS]
)
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(3))


@each_pair
def test_views_are_pictures(name: str, model: Model, images: torch.Tensor) -> None:
    views = made(name, model).views(images)
    assert views.shape == (N, available()[name].looks, *model.spec.shape)
    assert ((views >= 0) & (views <= 1)).all()


@each_pair
def test_rows_know_of_no_other(name: str, model: Model, images: torch.Tensor) -> None:
    detector = made(name, model)
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(N, 1 + detector.looks, 5, generator=generator)
    features = torch.randn(N, model.features, generator=generator)
    panel = Panel([detector])
    together = panel.scores(images, logits, features)[name]
    others = torch.rand(images.shape, generator=generator)
    for i in range(N):
        alone = panel.scores(images[i : i + 1], logits[i : i + 1], features[i : i + 1])[name]
        assert torch.equal(alone[0], together[i])
        mixed = others.clone()
        mixed[i] = images[i]
        assert torch.equal(detector.views(mixed)[i], detector.views(images)[i])


@each_pair
def test_scores_repeat_and_are_finite(name: str, model: Model, images: torch.Tensor) -> None:
    panel = Panel([made(name, model)])
    first, again = (panel.examine(model, images)[name] for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (N,)
    assert first.isfinite().all()
    assert len(set(first.tolist())) > 1


@pytest.mark.parametrize("name", [name for name, one in available().items() if one.fitted()])
@each_model
def test_a_state_that_does_not_fit_is_refused(name: str, model: Model) -> None:
    with pytest.raises(ModelRefused, match=f"{model.spec.name}: {name}: want"):
        available()[name](model.spec, {})
    state = available()[name].fit(clean(model))
    with pytest.raises(ModelRefused, match=f"{model.spec.name}: {name}: want"):
        available()[name](model.spec, {key: tensor[:1] for key, tensor in state.items()})


@each_model
def test_features_are_what_the_last_layer_takes_in(model: Model, images: torch.Tensor) -> None:
    """Of an ensemble it is the mean."""
    with torch.inference_mode():
        logits, features = model.look(images)
        assert torch.equal(logits, model(images))
        assert features.shape == (N, model.features)
        if isinstance(model.net, Ensemble):
            assert model.features == model.members * len(CLASSES) == 15
            again = model.net.join(torch.split(features, len(CLASSES), 1))
        else:
            assert model.members == 0
            again = model.net[-1](features)
        assert torch.equal(again, logits)


def test_a_detector_of_ensembles_refuses_another_model() -> None:
    x = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(8))
    plain, three = MODELS["small"], MODELS["three"]
    assert "disagreement" not in calibrate(plain, x, data="noise", rate=0.1).scores
    with pytest.raises(ModelRefused, match="small: disagreement: want an ensemble, got none"):
        calibrate(plain, x, data="noise", rate=0.1, names=["disagreement"])
    made = calibrate(three, x, data="noise", rate=0.1)
    assert set(made.scores) == {"disagreement", "squeeze", "transform"}
    assert set(SafetyNet(three, made, "").detectors) == set(made.scores)
    stolen = replace(made, model=plain.spec.name, model_sha256=plain.sha256)
    with pytest.raises(ModelRefused, match="small: disagreement: want an ensemble, got none"):
        SafetyNet(plain, stolen, "")


def test_learned_detector_tells_a_pattern_from_noise_of_its_size() -> None:
    model = MODELS["small"]
    channels, height, width = model.spec.shape
    rng = torch.Generator().manual_seed(6)
    waves = torch.rand(900, channels, 3, 3, generator=rng)
    smooth = torch.nn.functional.interpolate(waves, (height, width), mode="bilinear", align_corners=False)
    signs = (torch.arange(height)[:, None] + torch.arange(width)) % 2 * 2.0 - 1
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=rng).sign()
    forged = smooth + 0.1 * signs
    images, noise, forgeries = (part[:600].clamp(0, 1) for part in (smooth, noisy, forged))
    none = torch.empty(0)
    state = available()["learned"].fit(Clean(none, none, 5, images, noise, forgeries))
    detector = available()["learned"](model.spec, state)
    unseen = [
        detector.score(Evidence(part[600:].clamp(0, 1), none, none, none)) for part in (smooth, noisy, forged)
    ]
    for innocent in unseen[:2]:
        assert (unseen[2][:, None] > innocent).float().mean() > 0.9


@each_model
def test_attacked_pictures_stay_in_their_balls(model: Model) -> None:
    x = torch.rand(20, *model.spec.shape, generator=torch.Generator().manual_seed(4))
    x = (x * 255).round() / 255
    forged = attacked(model, x, FORGERIES)
    assert forged.shape == x.shape
    moved = (forged - x).abs().amax((1, 2, 3))
    assert (moved <= RADII[1] + 1e-6).all()
    assert (moved > 0).all()
    assert torch.equal(forged, attacked(model, x, FORGERIES))
