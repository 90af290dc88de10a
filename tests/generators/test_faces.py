"""The faces against the package's network, written down as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iguana_server import generators
from iguana_server.generators import faces
from iguana_server.models import packaged
from iguana_server.synthesis import catalog

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iguana-cache")


@pytest.fixture(scope="module")
def oracle() -> nn.Module:
    """The tutorial's Generator (main.N) with the file's own keys, not ours."""
    main = nn.Sequential(
        nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False), nn.BatchNorm2d(512), nn.ReLU(),
        nn.ConvTranspose2d(512, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    path = packaged.locate(faces.PACKAGE, faces.FILE)
    tensors = torch.load(path, "cpu", weights_only=True)["netG_state_dict"]
    main.load_state_dict({key.removeprefix("main."): value for key, value in tensors.items()})
    return main.eval().requires_grad_(False)


def codes(n: int) -> Tensor:
    return torch.randn(n, faces.LATENT, generator=torch.Generator().manual_seed(1))


def test_faces_are_those_of_the_package(oracle: nn.Module, cache: Path) -> None:
    z = codes(8)
    want = oracle(z.view(8, -1, 1, 1))
    served = faces.load(CPU, cache)
    with torch.inference_mode():
        torch.testing.assert_close(served.net(z), want, rtol=0, atol=1e-5)
        got = served(z, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(got, want / 2 + 0.5, rtol=0, atol=1e-5)
    assert want.std() > 0.2  # the comparison is of something
    assert (want[0] - want[1]).abs().mean() > 0.05


def test_batch_norm_is_folded_away(cache: Path) -> None:
    served = faces.load(CPU, cache)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in served.net.modules())
    tensors, _ = faces.weights(cache)
    unfolded = faces.net().eval()
    unfolded.load_state_dict(tensors)
    z = codes(4)
    with torch.inference_mode():
        torch.testing.assert_close(served.net(z), unfolded(z), rtol=0, atol=1e-5)


def test_gradient_in_the_codes_is_the_packages(oracle: nn.Module, cache: Path) -> None:
    z = codes(4).requires_grad_()
    target = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    (want,) = torch.autograd.grad((oracle(z.view(4, -1, 1, 1)) - target).square().sum(), z)
    (got,) = torch.autograd.grad((faces.load(CPU, cache).net(z) - target).square().sum(), z)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    assert want.abs().mean() > 0.1


def test_catalog_serves_faces_at_every_size_with_the_same_bits(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGUANA_CACHE", str(cache))
    network = catalog.load(generators, "faces")
    assert network.sizes[0] == network.bucket == 4
    assert network.sizes[-1] <= network.max_batch == 64
    assert network.sha256 == faces.weights(cache)[1]
