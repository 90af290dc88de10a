"""Detectors against what mathematics says of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iguana_server.detectors.base import Clean, Evidence, shift
from iguana_server.detectors.disagreement import information
from iguana_server.detectors.jpeg import jpeg
from iguana_server.detectors.lid import dimension
from iguana_server.detectors.mahalanobis import Mahalanobis, whitening
from iguana_server.detectors.squeeze import median, reduce
from tests.rpc.service import small_model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_fewer_bits_move_a_pixel_by_half_a_level_at_most_and_once(bits: int, seed: int) -> None:
    x = noise(1, 3, 5, 7, seed=seed)
    y = reduce(x, bits)
    assert (x - y).abs().max() <= 0.5 / (2**bits - 1) + 1e-7
    assert torch.equal(reduce(y, bits), y)
    assert len(set(y.flatten().tolist())) <= 2**bits


def test_median_is_that_of_the_nine_pixels() -> None:
    x = noise(2, 3, 6, 9)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    assert np.array_equal(median(x).numpy(), np.median(windows, (4, 5)))


@given(st.integers(0, 2**32), st.floats(0.01, 100))
def test_shift_is_in_0_to_2(seed: int, scale: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 5, generator=rng)
    views = scale * torch.randn(3, 2, 5, generator=rng)
    views[0, 0] = logits[0]
    d = shift(Evidence(noise(3, 1, 2, 2), logits, views, logits[:, :0]))
    assert d.shape == (3, 2)
    assert d[0, 0] == 0
    assert ((d >= 0) & (d <= 2 + 1e-6)).all()


@pytest.mark.parametrize(("d", "want"), [(2, 2.01), (8, 8.08), (32, 32.5)])
def test_dimension_of_a_ball_is_its_own(d: int, want: float) -> None:
    """Ma et al.'s estimator, at the centre of balls that are filled evenly, with k = 100."""
    rng = torch.Generator().manual_seed(d)
    radii = torch.rand(400, 2000, generator=rng, dtype=torch.float64) ** (1 / d)
    found = dimension(radii, 100)
    assert found.mean().item() == pytest.approx(
        d * 100 / 98, rel=0.02
    )  # the estimator's mean: a gamma's inverse
    assert found.mean().item() == pytest.approx(want, rel=0.03)  # as measured elsewhere


def test_dimension_leaves_the_point_itself_out() -> None:
    distances = noise(3, 50) + 0.1
    itself = torch.cat([torch.zeros(3, 1), distances], 1)
    assert torch.equal(dimension(itself, 20), dimension(distances, 20))


def test_mahalanobis_is_euclid_after_whitening() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=rng, dtype=torch.float64) @ torch.randn(
        6, 6, generator=rng, dtype=torch.float64
    )
    w = whitening(x)
    inverse = torch.linalg.inv(x.T @ x / len(x))
    direct = torch.einsum("ni,ij,nj->n", x, inverse, x)
    torch.testing.assert_close((x @ w).square().sum(1), direct, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((x @ w).T @ (x @ w) / len(x), torch.eye(6).double(), rtol=0, atol=1e-12)


def test_mahalanobis_counts_only_what_varies() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flat = torch.cat([x, torch.zeros(300, 3).double()], 1)
    torch.testing.assert_close(
        (flat @ whitening(flat)).square().sum(1), (x @ whitening(x)).square().sum(1), rtol=1e-10, atol=1e-10
    )


def test_mahalanobis_is_the_distance_to_the_nearest_class() -> None:
    rng = torch.Generator().manual_seed(2)
    spec, labels = small_model().spec, torch.arange(5).repeat(200)
    centres = 10 * torch.randn(5, 8, generator=rng)
    features = centres[labels] + torch.randn(1000, 8, generator=rng)
    none = torch.empty(0, *spec.shape)
    detector = Mahalanobis(spec, Mahalanobis.fit(Clean(features, labels, 5, none, none, none)))
    means = torch.stack([features[labels == k].mean(0) for k in range(5)]).double()
    spread = features.double() - means[labels]
    inverse = torch.linalg.inv(spread.T @ spread / 1000)
    gaps = features[:50].double()[:, None] - means
    want = torch.einsum("nki,ij,nkj->nk", gaps, inverse, gaps).amin(1)
    got = detector.score(Evidence(noise(50, 3, 2, 2), noise(50, 5), noise(50, 0, 5), features[:50]))
    torch.testing.assert_close(
        got.double(), want, rtol=5e-3, atol=5e-3
    )  # the state is kept in half precision


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_comes_out_of_a_file(mode: str, quality: int) -> None:
    """Within the roundings that T.81 leaves free."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    picture = small.resize((50, 45), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    want = np.asarray(Image.open(file)).reshape(45, 50, -1).astype(np.float64)
    x = torch.from_numpy(np.asarray(picture).reshape(45, 50, -1).copy()).permute(2, 0, 1)[None] / 255
    got = (jpeg(x, quality)[0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(got - want).mean() < 1
    assert np.abs(got - x[0].permute(1, 2, 0).numpy() * 255).mean() > np.abs(got - want).mean()
    assert np.abs(got - np.round(got)).max() < 1e-4


def test_jpeg_of_an_even_grey_is_itself() -> None:
    x = torch.full((1, 3, 20, 17), 128 / 255)
    torch.testing.assert_close(jpeg(x, 50), x, rtol=0, atol=1e-6)


def test_neighbours_that_are_all_equally_far_have_a_finite_dimension() -> None:
    assert dimension(torch.full((1, 30), 0.5), 20).item() == pytest.approx(1e6)


@given(st.integers(2, 7), st.integers(0, 2**32), st.floats(0.01, 100))
def test_members_disagree_by_the_entropy_of_their_mean_less_their_mean_entropy(
    members: int, seed: int, scale: float
) -> None:
    z = scale * torch.randn(4, members, 5, generator=torch.Generator().manual_seed(seed))
    raised = np.exp(z.double().numpy() - z.amax(2, keepdim=True).double().numpy())
    p = raised / raised.sum(2, keepdims=True)

    def entropy(q: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = -(q * np.log(np.where(q > 0, q, 1))).sum(-1)
        return sums

    want = entropy(p.mean(1)) - entropy(p).mean(1)
    np.testing.assert_allclose(information(z).numpy(), want, rtol=1e-5, atol=1e-12)
    assert ((want >= -1e-12) & (want <= np.log(min(members, 5)) + 1e-12)).all()


@pytest.mark.parametrize(("members", "classes"), [(2, 10), (5, 5), (5, 3)])
def test_members_that_are_sure_of_unlike_classes_disagree_by_a_logarithm(members: int, classes: int) -> None:
    z = 200 * torch.eye(classes)[torch.arange(members) % classes][None]
    p = torch.bincount(torch.arange(members) % classes, minlength=classes).double() / members
    most = -(p[p > 0] * p[p > 0].log()).sum().item()
    assert information(z).item() == pytest.approx(most)
    if members <= classes:
        assert most == pytest.approx(np.log(members))


def test_members_that_agree_do_so_by_nothing() -> None:
    z = 30 * torch.randn(50, 1, 10, generator=torch.Generator().manual_seed(0)).expand(50, 5, 10)
    assert information(z).max() <= 1e-14
    assert information(z + torch.arange(5)[:, None]).max() <= 1e-12  # softmax knows of no shift


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e30])
def test_disagreement_has_a_gradient_at_any_logits(scale: float) -> None:
    z = (scale * torch.randn(6, 5, 10, generator=torch.Generator().manual_seed(0))).requires_grad_()
    (grad,) = torch.autograd.grad(information(z).sum(), z)
    assert grad.isfinite().all()
    if scale == 1:
        assert (grad.abs().amax((1, 2)) > 1e-3).all()


def test_gradient_of_disagreement_is_that_of_differences() -> None:
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nudge = 1e-3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad(information(leaf).sum(), leaf)
    rise = information(z + nudge) - information(z - nudge)
    torch.testing.assert_close(rise.double(), 2 * (grad * nudge).sum((1, 2)), rtol=1e-2, atol=1e-7)
