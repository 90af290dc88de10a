"""What rewriting a network keeps: values and gradients, bit for bit where it says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from iguana_server.models.clip import Clip
from iguana_server.models.fold import fold


def both(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient in x, with a cotangent that has no symmetry."""
    leaf = x.clone().requires_grad_()
    y = net(leaf * 1.0)  # in place must not meet a leaf
    cotangent = torch.arange(y.numel(), dtype=torch.float32).view_as(y).sin()
    (grad,) = torch.autograd.grad(y, leaf, cotangent)
    return y.detach(), grad


@given(low=st.integers(0, 2), more=st.integers(0, 2), kernel=st.integers(1, 5), stride=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_padding_goes_into_a_depthwise_convolution(low: int, more: int, kernel: int, stride: int) -> None:
    torch.manual_seed(kernel)
    pads = (low, low + more, low + more, low)
    net = nn.Sequential(nn.ZeroPad2d(pads), nn.Conv2d(6, 6, kernel, stride, groups=6)).eval()
    x = torch.randn(2, 6, 11, 9)
    want, folded = both(net, x), fold(net)
    assert [type(layer) for layer in folded.children()] == [nn.Conv2d]
    for a, b in zip(both(folded, x), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("pads", "left"), [((1, 1, 1, 1), 1), ((2, 2, 0, 0), 1), ((0, 1, 0, 1), 2)])
def test_padding_goes_into_a_dense_convolution_only_where_both_sides_are_equal(
    pads: tuple[int, int, int, int], left: int
) -> None:
    net = nn.Sequential(nn.ZeroPad2d(pads), nn.Conv2d(3, 4, 3, stride=2)).eval()
    x = torch.randn(2, 3, 8, 8)
    want, folded = both(net, x), fold(net)
    assert len(list(folded.children())) == left
    for a, b in zip(both(folded, x), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("groups", "left"), [(1, 1), (2, 2)])
def test_batch_norm_goes_into_a_transposed_convolution_without_groups(groups: int, left: int) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        assert values is not None
        values.uniform_(0.5, 2)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=groups, bias=False), norm).eval()
    x = torch.randn(2, 4, 5, 7)
    want, folded = both(net, x), fold(net)
    assert len(list(folded.children())) == left
    for a, b in zip(both(folded, x), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4),
        nn.Conv2d(4, 4, 3, dilation=2, groups=4),
    ],
)
def test_padding_stays_before_a_convolution_that_pads_in_its_own_way(conv: nn.Conv2d) -> None:
    assert len(list(fold(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv).eval()).children())) == 2


def hard_pixels() -> Tensor:
    """Ties everywhere: below zero, at zero, between, at six, above; and what is not finite."""
    values = torch.tensor([-1.0, -0.0, 0.0, 0.5, 0.5, 3.0, 6.0, 6.0, 7.0])
    x = values[torch.randint(0, len(values), (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))]
    x[0, 0, :2] = torch.inf
    x[1, 0, :2] = -torch.inf
    return x


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True)])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, padding=1)])
def test_pooling_before_relu_is_the_same_bits(relu: nn.Module, pool: nn.Module) -> None:
    net = nn.Sequential(relu, pool).eval()
    want, folded = both(net, hard_pixels()), fold(net)
    assert isinstance(next(folded.modules()), nn.Sequential)
    inner = next(iter(folded.children()))
    assert isinstance(next(iter(inner.children())), nn.MaxPool2d)
    for a, b in zip(both(folded, hard_pixels()), want, strict=True):
        assert torch.equal(a, b)


def test_clip_is_relu6_in_every_bit() -> None:
    for a, b in zip(both(Clip(), hard_pixels()), both(nn.ReLU6(), hard_pixels()), strict=True):
        assert torch.equal(a, b)
    with torch.inference_mode():
        assert torch.equal(Clip()(hard_pixels()), nn.ReLU6()(hard_pixels()))
    assert Clip()(torch.tensor([torch.nan])).isnan()


def test_relu6_that_keeps_its_input_is_left_alone() -> None:
    assert [type(layer) for layer in fold(nn.Sequential(nn.ReLU6()).eval()).children()] == [nn.ReLU6]
