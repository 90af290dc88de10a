from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models.fold import fold

from . import nets


def test_pixels_are_normalised_by_mean_and_std() -> None:
    spec = nets.spec()
    seen: list[Tensor] = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean((2, 3))

    x = torch.rand(6, *spec.shape)
    nets.model(Sees())(x)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (spec.mean, spec.std))
    torch.testing.assert_close(seen[-1].double(), (x.double() - mean) / std, rtol=0, atol=5e-7)


def test_model_is_frozen() -> None:
    model = nets.model(nets.sound().train())
    assert not any(module.training for module in model.net.modules())
    assert not any(parameter.requires_grad for parameter in model.net.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) for module in model.net.modules())
    weight = next(p for p in model.net.parameters() if p.dim() == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_gradient_is_that_of_the_pixels() -> None:
    x = torch.rand(3, *nets.SHAPE, requires_grad=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (nets.spec().mean, nets.spec().std))
    (want,) = torch.autograd.grad(nets.sound()((x - mean) / std).square().sum(), x)
    (got,) = torch.autograd.grad(nets.model(nets.sound())(x).square().sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_folding_keeps_the_logits() -> None:
    x = torch.randn(4, *nets.SHAPE)
    net = nets.sound()
    with torch.no_grad():
        want = net(x)
        folded = fold(net)
        torch.testing.assert_close(folded(x), want, rtol=0, atol=2e-5)
    assert [type(layer) for layer in folded.children()].count(nn.BatchNorm1d) == 0
    assert len(list(folded.modules())) == len(list(nets.sound().modules())) - 3


@pytest.mark.parametrize("between", [nn.ReLU(), nn.Identity(), nn.MaxPool2d(1)])
def test_norm_that_does_not_follow_directly_stays(between: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.BatchNorm2d(4)).eval()
    assert len(fold(net)) == 3  # type: ignore[arg-type]


def test_norm_of_the_batch_stays() -> None:
    training = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert len(fold(training)) == 2  # type: ignore[arg-type]
    stateless = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert len(fold(stateless)) == 2  # type: ignore[arg-type]


def test_container_with_its_own_order_is_not_paired() -> None:
    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for layer in reversed(list(self)):
                x = layer(x)
            return x

    net = Backwards(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        assert torch.equal(fold(net)(x), net(x))
    assert len(net) == 2


def test_linear_along_another_axis_is_not_paired() -> None:
    # BatchNorm1d takes [n, L, F] as n rows of L channels; a fold along F would be another function.
    net = nn.Sequential(nn.Flatten(2), nn.Linear(144, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 5))
    assert len(fold(net.eval())) == 5  # type: ignore[arg-type]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(144, 3), nn.ReLU(), nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert len(fold(flat.eval())) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("name", "Tiny", "name: want"),
        ("name", "tiny\n", "name: want"),
        ("name", "", "name: want"),
        ("shape", (3, 0, 12), "shape: want C, H, W of 1 or more, got (3, 0, 12)"),
        ("classes", ("one",), "classes: want 2 or more, got 1"),
        ("mean", (0.5,), "mean: want 3 values in [0, 1], got (0.5,)"),
        ("mean", (127.0, 127.0, 127.0), "mean: want 3 values in [0, 1]"),
        ("std", (0.2, 0.2, 0.0), "std: want 3 values"),
        ("resize", 11, "resize: want 12 pixels or more, got 11"),
        ("bucket", 0, "bucket: want 1 row or more, got 0"),
        ("max_batch", 3, "max_batch: want the bucket's 4 rows or more, got 3"),
    ],
)
def test_contradictory_spec_is_refused_by_field(field: str, value: object, text: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        nets.spec(**{field: value})
    assert text in str(caught.value)


def test_all_faults_of_a_spec_are_said_at_once() -> None:
    with pytest.raises(ModelRefused, match=r"name: .*; resize: "):
        nets.spec(name="?", resize=1)


def test_layer_that_stands_twice_is_kept_twice() -> None:
    relu, conv = nn.ReLU(), nn.Conv2d(3, 3, 1)
    net = nn.Sequential(conv, nn.BatchNorm2d(3), relu, nn.Conv2d(3, 3, 1), relu).eval()
    x = torch.randn(2, 3, 4, 4)
    before = net(x)
    folded = fold(net)
    assert len(folded._modules) == 4
    torch.testing.assert_close(folded(x), before, atol=1e-5, rtol=0)


def test_layer_that_works_in_its_own_way_is_not_paired() -> None:
    class Halved(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / 2)

    net = nn.Sequential(Halved(3, 3, 1), nn.BatchNorm2d(3)).eval()
    assert len(list(fold(net).children())) == 2
