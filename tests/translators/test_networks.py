"""The networks are the published ones: as many weights, the same fields of view, the same outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iguana_server.translators.norms import Norm
from iguana_server.translators.patchgan import NLayerDiscriminator, PixelDiscriminator, receptive_field
from iguana_server.translators.resnet import ResnetGenerator
from iguana_server.translators.unet import UnetGenerator
from tests.translators import published

NORMS: tuple[Norm, ...] = ("batch", "instance", "instance-affine", "none")


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("parameters", "kind", "arguments"),
    [
        (11_378_179, ResnetGenerator, (3, 3, 64, 9, "instance")),
        (7_837_699, ResnetGenerator, (3, 3, 64, 6, "instance")),
        (11_383_427, ResnetGenerator, (3, 3, 64, 9, "batch")),
        (54_413_955, UnetGenerator, (3, 3, 64, 8, "batch")),
        (41_828_995, UnetGenerator, (3, 3, 64, 7, "batch")),
        (2_764_737, NLayerDiscriminator, (3, 64, 3, "instance")),
        (2_768_705, NLayerDiscriminator, (6, 64, 3, "batch")),
    ],
)
def test_networks_have_as_many_weights_as_the_published_ones(
    parameters: int, kind: type[nn.Module], arguments: tuple[object, ...]
) -> None:
    with torch.device("meta"):
        assert count(kind(*arguments)) == parameters


def test_patchgan_judges_a_picture_of_256_by_30_x_30_patches() -> None:
    with torch.device("meta"):
        net = NLayerDiscriminator(3, 64, 3, "instance")
        assert net(torch.empty(2, 3, 256, 256)).shape == (2, 1, 30, 30)


def test_receptive_fields_are_those_of_the_paper() -> None:
    assert [receptive_field(layers) for layers in range(1, 7)] == [16, 34, 70, 142, 286, 574]


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_receptive_field_and_no_more(layers: int, side: int) -> None:
    net = NLayerDiscriminator(1, 4, layers, "none").double()
    x = noise(1, 1, 160, 160).double().requires_grad_()
    y = net(x)
    middle = y.shape[-1] // 2
    (gradient,) = torch.autograd.grad(y[0, 0, middle, middle], x)
    rows, columns = (gradient[0, 0].abs().sum(axis).nonzero().flatten() for axis in (1, 0))
    for seen in (rows, columns):
        assert seen.max() - seen.min() + 1 == side


def test_pixel_discriminator_sees_a_pixel() -> None:
    net = PixelDiscriminator(3, 8, "batch").eval()
    x = noise(1, 3, 9, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[0, 0, 4, 6], x)
    assert gradient.abs().sum(1).nonzero().tolist() == [[0, 4, 6]]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_resnet_loads_a_published_checkpoint_and_does_the_same(norm: Norm, dropout: bool) -> None:
    state = published.resnet_state(3, 2, 6, 4, norm, dropout=dropout)
    net = ResnetGenerator(3, 2, 6, 4, norm, dropout=dropout).eval()
    net.load_state_dict(state)
    assert list(net.state_dict()) == list(state)
    x = noise(2, 3, 20, 28)
    want = published.resnet(state, x, 4, norm, dropout=dropout)
    assert want.std() > 0.05
    torch.testing.assert_close(net(x), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("downs", [5, 6])
@pytest.mark.parametrize("norm", NORMS)
def test_unet_loads_a_published_checkpoint_and_does_the_same(norm: Norm, downs: int) -> None:
    state = published.unet_state(1, 3, 4, downs, norm)
    net = UnetGenerator(1, 3, 4, downs, norm, dropout=True).eval()
    net.load_state_dict(state)
    assert list(net.state_dict()) == list(state)
    x = noise(2, 1, 64, 128)
    want = published.unet(state, x, downs, norm)
    assert want.std() > 0.05
    torch.testing.assert_close(net(x), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3, 4])
@pytest.mark.parametrize("norm", NORMS)
def test_patchgan_loads_a_published_checkpoint_and_does_the_same(norm: Norm, layers: int) -> None:
    state = published.patchgan_state(6, 4, layers, norm)
    net = NLayerDiscriminator(6, 4, layers, norm).eval()
    net.load_state_dict(state)
    assert list(net.state_dict()) == list(state)
    x = noise(2, 6, 64, 96)
    torch.testing.assert_close(net(x), published.patchgan(state, x, layers, norm), rtol=1e-5, atol=1e-5)


def test_unet_leaves_its_picture_as_it_was() -> None:
    """The published one works in place; a caller's picture must outlast a pass."""
    net, x = UnetGenerator(1, 1, 4, 5, "batch").eval(), noise(1, 1, 32, 32)
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


def test_dropout_of_a_unet_is_where_the_levels_are_widest() -> None:
    def of(downs: int) -> int:
        return sum(
            isinstance(m, nn.Dropout) for m in UnetGenerator(1, 1, 2, downs, "batch", dropout=True).modules()
        )

    assert [of(downs) for downs in (5, 7, 8)] == [0, 2, 3]
