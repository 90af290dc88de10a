"""With virtual batch norm a row depends on the reference and on itself; with batch norm, on its batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from iguana_server.generators import fashion_mnist as model
from iguana_server.training.recipes.gan import GAN, REFERENCE
from iguana_server.training.virtual import EPSILON, Referenced, VirtualNorm


def test_row_is_normalised_by_the_reference_and_itself() -> None:
    rng = torch.Generator().manual_seed(0)
    reference, x = torch.randn(6, 3, 4, 4, generator=rng), torch.randn(5, 3, 4, 4, generator=rng) + 2
    got = VirtualNorm(6)(torch.cat([reference, x]))
    for i in range(5):
        joint = torch.cat([reference, x[i : i + 1]])
        mean, var = joint.mean((0, 2, 3)), joint.var((0, 2, 3), correction=0)
        want = (x[i] - mean[:, None, None]) / (var[:, None, None] + EPSILON).sqrt()
        torch.testing.assert_close(got[6 + i], want, rtol=1e-4, atol=1e-5)
    mean, var = reference.mean((0, 2, 3)), reference.var((0, 2, 3), correction=0)
    want = (reference - mean[:, None, None]) / (var[:, None, None] + EPSILON).sqrt()
    torch.testing.assert_close(got[:6], want, rtol=1e-4, atol=1e-5)


def _generator(virtual: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GAN(virtual=virtual, width=4).nets()["generator"].train()


def _change(generator: nn.Module) -> float:
    """Return by how much row 0 changes when its company does."""
    rng = torch.Generator().manual_seed(1)
    z, label = torch.randn(2, 8, model.LATENT, generator=rng), torch.arange(8)
    z[1, 0] = z[0, 0]
    z[1, 1:] *= 3
    rows: list[Tensor] = [generator(one, label)[0] for one in z]
    return float((rows[0] - rows[1]).detach().abs().max())


def test_row_does_not_see_its_batch() -> None:
    assert _change(_generator(virtual=True)) == 0


def test_plain_batch_norm_fails_that() -> None:
    assert _change(_generator(virtual=False)) > 0.01


def test_row_depends_on_the_reference() -> None:
    first = _generator(virtual=True)
    assert isinstance(first, Referenced)
    rng = torch.Generator().manual_seed(1)
    z, label = torch.randn(8, model.LATENT, generator=rng), torch.arange(8)
    before = first(z, label)
    assert before.shape == (8, 1, 28, 28)
    first.get_buffer("reference0").mul_(2)
    assert float((first(z, label) - before).detach().abs().max()) > 0.001


def test_row_alone_is_the_row_in_company() -> None:
    generator = _generator(virtual=True)
    z, label = torch.randn(8, model.LATENT, generator=torch.Generator().manual_seed(1)), torch.arange(8)
    torch.testing.assert_close(generator(z[:1], label[:1]), generator(z, label)[:1], rtol=0, atol=1e-5)


def test_reference_learns_too() -> None:
    """The statistics are those of the weights as they are now, and gradients go through them."""
    net = Referenced(model.Net(4, partial(_norm)), torch.randn(REFERENCE, 100), torch.arange(REFERENCE) % 10)
    z = torch.randn(2, 100)
    net(z, torch.tensor([1, 2])).sum().backward()
    gradient = net.get_parameter("net.start.weight").grad
    assert gradient is not None
    assert float(gradient[7].abs().max()) > 0  # a class that is in the reference alone


def _norm(_: int) -> nn.Module:
    return VirtualNorm(REFERENCE)


@pytest.mark.parametrize("virtual", [False, True])
def test_gradient_reaches_every_weight(virtual: bool) -> None:
    generator = _generator(virtual)
    generator(torch.randn(10, 100), torch.arange(10)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
