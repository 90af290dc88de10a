"""The measures of benchmarks/superres.py against scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks import likeness


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1, 12, 15, generator=rng, dtype=torch.float64)
    a = torch.nn.functional.interpolate(a, (47, 62), mode="bicubic")[0, 0].clamp(0, 1)
    return a, (a + 0.05 * torch.randn(a.shape, generator=rng, dtype=torch.float64)).clamp(0, 1)


def test_measures_are_those_of_scikit_image() -> None:
    a, b = pictures()
    want = structural_similarity(
        a.numpy(), b.numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert likeness.ssim(a, b) == pytest.approx(want, abs=1e-9)
    assert 0.5 < want < 0.99
    assert likeness.psnr(a, b) == pytest.approx(
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0), abs=1e-9
    )


def test_a_picture_is_like_itself_and_a_constant_error_has_its_closed_form() -> None:
    a, _ = pictures()
    assert likeness.ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert likeness.psnr(a, a + 0.1) == pytest.approx(20)


def test_luma_of_black_grey_and_white() -> None:
    x = torch.tensor([0.0, 0.5, 1.0]).expand(3, 1, 3)
    np.testing.assert_allclose(likeness.luma(x).numpy() * 255, [[16, 125.5, 235]], atol=1e-4)
