"""What every detector keeps to: rows know of no other, scores repeat, views are pictures."""

from __future__ import annotations

import functools

import pytest
import torch

from iguana_server.detectors.base import Clean, Detector, Evidence
from iguana_server.detectors.catalog import available
from iguana_server.detectors.panel import Panel
from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model
from iguana_server.training.detector import FORGERIES, RADII, attacked, features_of
from tests.rpc.service import small_model

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


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model()


@pytest.fixture
def images(model: Model) -> torch.Tensor:
    return torch.rand(N, *model.spec.shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", available())
def test_views_are_pictures(name: str, model: Model, images: torch.Tensor) -> None:
    views = made(name, model).views(images)
    assert views.shape == (N, available()[name].looks, *model.spec.shape)
    assert ((views >= 0) & (views <= 1)).all()


@pytest.mark.parametrize("name", available())
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


@pytest.mark.parametrize("name", available())
def test_scores_repeat_and_are_finite(name: str, model: Model, images: torch.Tensor) -> None:
    panel = Panel([made(name, model)])
    first, again = (panel.examine(model, images)[name] for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (N,)
    assert first.isfinite().all()
    assert len(set(first.tolist())) > 1


@pytest.mark.parametrize("name", [name for name, one in available().items() if one.fitted()])
def test_a_state_that_does_not_fit_is_refused(name: str, model: Model) -> None:
    with pytest.raises(ModelRefused, match=f"small: {name}: want"):
        available()[name](model.spec, {})
    state = available()[name].fit(clean(model))
    with pytest.raises(ModelRefused, match=f"small: {name}: want"):
        available()[name](model.spec, {key: tensor[:1] for key, tensor in state.items()})


def test_features_are_what_the_last_layer_takes_in(model: Model, images: torch.Tensor) -> None:
    with torch.inference_mode():
        logits, features = model.look(images)
        assert torch.equal(logits, model(images))
        assert features.shape == (N, model.features)
        assert torch.equal(model.net[-1](features), logits)


def test_learned_detector_tells_a_pattern_from_noise_of_its_size(model: Model) -> None:
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


def test_attacked_pictures_stay_in_their_balls(model: Model) -> None:
    x = torch.rand(20, *model.spec.shape, generator=torch.Generator().manual_seed(4))
    x = (x * 255).round() / 255
    forged = attacked(model, x, FORGERIES)
    assert forged.shape == x.shape
    moved = (forged - x).abs().amax((1, 2, 3))
    assert (moved <= RADII[1] + 1e-6).all()
    assert (moved > 0).all()
    assert torch.equal(forged, attacked(model, x, FORGERIES))
