"""Several networks are one classifier, to whoever looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iguana_server.attacks.pgd import PGD
from iguana_server.errors import ModelRefused
from iguana_server.models import fashion_mnist
from iguana_server.models.base import Model
from iguana_server.models.ensemble import Ensemble
from iguana_server.models.probe import probe
from tests.attacks import alone

CPU = torch.device("cpu")
SPEC = fashion_mnist.spec("five", "five networks", "this test", CPU)


def networks(n: int = 3) -> list[nn.Module]:
    """Networks with weights and statistics of their own, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets: list[nn.Module] = [fashion_mnist.net(4) for _ in range(n)]
        for net in nets:
            net(torch.randn(16, 1, 28, 28))
    return [net.eval() for net in nets]


def both(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    z = net(leaf)
    (grad,) = torch.autograd.grad(z[:, 3].sum(), leaf)
    return z.detach(), grad


def test_logits_and_gradients_are_the_members_means() -> None:
    nets = networks()
    x = torch.randn(5, 1, 28, 28)
    alone_, together = [both(net, x) for net in nets], both(Ensemble(nets), x)
    for i in (0, 1):
        want = torch.stack([one[i] for one in alone_]).mean(0)
        torch.testing.assert_close(together[i], want, rtol=1e-5, atol=1e-6)


def test_ensemble_passes_the_probe_with_its_members_folded() -> None:
    nets = networks(5)
    x = torch.rand(4, 1, 28, 28)
    want = Ensemble(nets)((x - fashion_mnist.MEAN) / fashion_mnist.STD).detach()
    model = Model(SPEC, Ensemble(nets), sha256="", device=CPU)
    assert probe(model).name == "five"
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.net.modules())
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)


def test_attack_on_the_ensemble_climbs_the_mean_of_its_members() -> None:
    """FGSM's sign is that of the mean logits' gradient, not of any member's."""
    model = Model(SPEC, Ensemble(networks()), sha256="", device=CPU)
    x = torch.rand(4, 1, 28, 28) * 0.6 + 0.2
    label = torch.tensor([0, 3, 5, 9])
    table = PGD.new(x, classes=10, label=label, epsilon=0.1, alpha=0.1, steps=1, stop=3)
    alone.climb(table, model)
    leaf = x.clone().requires_grad_()
    z = torch.stack([m((leaf - fashion_mnist.MEAN) / fashion_mnist.STD) for m in networks()]).mean(0)
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(z, label), leaf)
    agree = (table.x - x).sign() == grad.sign()
    assert float(agree.double().mean()) > 0.999


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(ModelRefused, match=r"ensemble: want 2 members or more, got 1"):
        Ensemble(networks(1))


def test_members_differ() -> None:
    members = fashion_mnist.ensemble(3, width=4).members
    assert not torch.equal(members[0].get_parameter("0.weight"), members[1].get_parameter("0.weight"))
