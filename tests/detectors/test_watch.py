"""A model under watch says what the model says, and of each picture what Detect does."""

from __future__ import annotations

import pytest
import torch

from iguana_server.detectors.jpeg import jpeg
from iguana_server.detectors.squeeze import reduce
from iguana_server.detectors.straight import rounded
from iguana_server.detectors.suspicion import Suspicion
from iguana_server.detectors.watch import Watch
from tests.detectors.waves import safety_net, waves
from tests.rpc.service import small_model

MODEL = small_model()
NET = safety_net(MODEL)


def watch(*names: str) -> Watch:
    return NET.watch(NET.screen(names, 0))


def noisy(n: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    x = waves(MODEL, n, seed=2)
    return (x + 0.1 * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def test_logits_are_the_models_and_suspicion_is_of_the_detectors_scores() -> None:
    x = noisy(MODEL.spec.bucket)
    logits, suspicion = watch()(x)
    assert torch.equal(logits, MODEL(x))
    scores = NET.screen((), 0).panel.examine(MODEL, x)
    assert torch.allclose(suspicion, Suspicion(NET.calibration, list(scores))(scores), atol=1e-3)


@pytest.mark.parametrize("name", [*NET.detectors, ""])
def test_a_gradient_reaches_the_pixels_through_every_detector(name: str) -> None:
    """And is finite; roundings do not stop it."""
    x = noisy(4).requires_grad_()
    _, suspicion = watch(*filter(None, [name]))(x)
    (grad,) = torch.autograd.grad(suspicion.sum(), x)
    assert torch.isfinite(grad).all()
    assert (grad.abs().amax((1, 2, 3)) > 0).any()


@pytest.mark.parametrize("name", ["mahalanobis", "lid", "learned"])
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    """Of detectors that round nothing, along the gradient itself."""
    x = noisy(1).requires_grad_()
    (grad,) = torch.autograd.grad(watch(name)(x)[1].sum(), x)
    step = 1e-3 * grad / grad.norm()
    with torch.no_grad():
        rise = watch(name)(x + step)[1] - watch(name)(x - step)[1]
    assert float(rise / 2e-3) == pytest.approx(float(grad.norm()), rel=0.05)


def test_rows_do_not_know_of_each_other() -> None:
    """Whoever else is in the batch, in whatever place: the same suspicion and the same gradient, bit for bit."""
    bucket = MODEL.spec.bucket
    x = noisy(bucket)
    found = []
    for order in (list(range(bucket)), list(reversed(range(bucket)))):
        y = x[order].clone().requires_grad_()
        _, suspicion = watch()(y)
        (grad,) = torch.autograd.grad(suspicion.sum(), y)
        found.append((suspicion[order].detach(), grad[order]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_the_same_detectors_are_watched_by_the_same_object() -> None:
    """So that callers who choose them in another order share passes."""
    assert watch("squeeze", "lid") is watch("lid", "squeeze")
    assert watch("squeeze") is not watch("lid")


def test_straight_through_is_rounding_with_the_gradient_of_the_identity() -> None:
    x = torch.linspace(-3, 3, 61).requires_grad_()
    y = rounded(x)
    assert torch.equal(y, x.round())
    (grad,) = torch.autograd.grad((2 * y).sum(), x)
    assert torch.equal(grad, torch.full_like(x, 2))


def test_jpeg_and_grey_levels_let_gradients_through() -> None:
    x = noisy(2)[:, :, :6, :6].clone().requires_grad_()
    for y in (jpeg(x, 50), reduce(x, 3)):
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert float(grad.sum()) == pytest.approx(x.numel(), rel=0.2)
