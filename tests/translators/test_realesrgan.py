"""Super-resolution against ncnn, which the weights were packed for, and in tiles against untiled."""

from __future__ import annotations

from pathlib import Path

import ncnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iguana_server.models import packaged
from iguana_server.translators import realesrgan
from iguana_server.translators.compact import RADIUS, Compact
from iguana_server.translators.realesrgan import PACKAGE, VARIANTS
from iguana_server.translators.rrdb import RRDBNet
from iguana_server.translators.tiles import assemble, cut

CPU = torch.device("cpu")
PARAMETERS = {"superres-x4": 621_424, "superres-x4-plus": 16_697_987}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iguana-cache")


def photo(height: int, width: int) -> Tensor:
    """What has edges, flat parts and fine texture: [1, 3, H, W]."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 7, 7, generator=rng)
    x = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    x[:, :, height // 3 : height // 2, : width // 2] = 0.9
    return (x + 0.05 * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def by_ncnn(file: str, x: Tensor) -> Tensor:
    """Run the package's file as ncnn does, in float32 on the CPU."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    for precision in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{precision}", False)
    path = packaged.locate(PACKAGE, f"models/{file}")
    assert net.load_param(str(path.with_suffix(".param"))) == 0
    assert net.load_model(str(path)) == 0
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(x[0].contiguous().numpy()))
    status, y = extractor.extract("output")
    assert status == 0
    return torch.from_numpy(np.array(y))[None]


@pytest.mark.parametrize("name", VARIANTS)
def test_pictures_are_those_of_ncnn(name: str, cache: Path) -> None:
    x = photo(19, 24)
    served = realesrgan.load(name, CPU, cache)
    with torch.inference_mode():
        raw = served.net(x)
        y = served(x, torch.zeros(1, 0))
    want = by_ncnn(VARIANTS[name].file, x)
    torch.testing.assert_close(raw, want, rtol=0, atol=1e-4)
    assert torch.equal(y, raw.clamp(0, 1))
    assert y.shape == (1, 3, 76, 96)
    assert sum(p.numel() for p in served.net.parameters()) == PARAMETERS[name]
    assert want.std() > 0.1  # the comparison is of something
    smaller = nn.functional.avg_pool2d(y, 4)
    assert torch.corrcoef(torch.stack([smaller.flatten(), x.flatten()]))[0, 1] > 0.8  # it is of what went in


def test_names_of_tensors_are_the_official_ones() -> None:
    compact = Compact().state_dict()
    assert {f"body.{k}.weight" for k in range(35)} <= compact.keys()
    assert compact["body.34.weight"].shape == (48, 64, 3, 3)
    whole = RRDBNet(blocks=1).state_dict()
    parts = ("conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
    blocks = [f"body.0.rdb{k}.conv{c}" for k in (1, 2, 3) for c in range(1, 6)]
    assert whole.keys() == {f"{layer}.{kind}" for layer in (*parts, *blocks) for kind in ("weight", "bias")}


def test_a_pixel_of_the_compact_one_depends_on_its_radius(cache: Path) -> None:
    net = realesrgan.load("superres-x4", CPU, cache).net
    x = photo(1, 1).expand(1, 3, 2 * RADIUS + 5, 2 * RADIUS + 5).clone().requires_grad_()
    centre = RADIUS + 2
    y = net(x)[..., 4 * centre : 4 * centre + 4, 4 * centre : 4 * centre + 4]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    seen = gradient[0].abs().sum(0).nonzero()
    assert seen.min() == 2
    assert seen.max() == 2 * RADIUS + 2


@pytest.mark.parametrize(("height", "width"), [(70, 131), (40, 66), (90, 20)])
def test_tiles_of_the_compact_one_have_no_seams(height: int, width: int, cache: Path) -> None:
    net, x = realesrgan.load("superres-x4", CPU, cache).net, photo(height, width)
    tiles = cut(height, width, 64, RADIUS)
    with torch.inference_mode():
        tiled = assemble(tiles, (net(tile.of(x)) for tile in tiles), height, width, 4)
        torch.testing.assert_close(tiled, net(x), rtol=0, atol=1e-5)
    assert len(tiles) > 1


def test_halves_of_a_picture_have_a_seam(cache: Path) -> None:
    net, x = realesrgan.load("superres-x4", CPU, cache).net, photo(40, 66)
    with torch.inference_mode():
        halves = torch.cat([net(x[..., :33]), net(x[..., 33:])], -1)
        assert (halves - net(x))[..., 4 * 31 : 4 * 35].abs().max() > 0.01


def test_what_is_declared_fits() -> None:
    assert VARIANTS["superres-x4"].overlap == RADIUS
    for variant in VARIANTS.values():
        assert len(cut(500, 500, variant.side, variant.overlap)) > 1
