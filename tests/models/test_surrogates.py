"""Models of unlike sizes are one, each seeing the picture as it would see the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from iguana_server.attacks.pgd import PGD
from iguana_server.errors import ModelRefused
from iguana_server.models import fashion_mnist
from iguana_server.models.base import Model
from iguana_server.models.ensemble import Ensemble
from iguana_server.models.probe import probe
from iguana_server.models.resize import Resize, bicubic
from iguana_server.models.surrogates import Member, unite
from tests.attacks import alone

CPU = torch.device("cpu")


def surrogate(side: int, mean: float = 0.3, classes: int = 10, seed: int = 0) -> Model:
    """A small network for pictures of `side` x `side`, with a normalisation of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32, classes),
        )
    spec = replace(
        fashion_mnist.spec(f"net-{side}", "one of a size", "this test", CPU),
        shape=(1, side, side),
        resize=side,
        mean=(mean,),
        std=(0.4 - mean / 2,),
        classes=fashion_mnist.CLASSES[:classes],
    )
    return Model(spec, net, sha256=f"{side:064x}", device=CPU)


SPEC = replace(fashion_mnist.spec("both", "two sizes", "this test", CPU), shape=(1, 30, 30), resize=30)


def pictures(n: int, side: int = 30) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


@given(*[st.integers(1, 60)] * 4)
def test_resize_is_pillows_bicubic(height: int, width: int, high: int, wide: int) -> None:
    x = torch.rand(height, width, generator=torch.Generator().manual_seed(height * 61 + width))
    want = np.asarray(Image.fromarray(x.numpy()).resize((wide, high), Image.Resampling.BICUBIC))
    got = Resize((height, width), (high, wide))(x[None, None])[0, 0]
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-5)


def test_resize_to_its_own_size_changes_nothing() -> None:
    assert torch.equal(bicubic(17, 17), torch.eye(17))


def test_resize_has_its_transpose_for_a_gradient() -> None:
    x = torch.rand(2, 3, 19, 23, requires_grad=True)
    y = torch.rand(2, 3, 31, 11)
    (grad,) = torch.autograd.grad((Resize((19, 23), (31, 11))(x) * y).sum(), x)
    want = bicubic(19, 31).T @ y @ bicubic(23, 11)
    torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-6)


def test_resized_rows_have_the_same_bits_in_any_company() -> None:
    resize, x = Resize((30, 30), (41, 23)), torch.rand(7, 3, 30, 30)
    whole = resize(x)
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = x.contiguous(memory_format=layout)
        assert torch.equal(resize(laid), whole)
        assert torch.equal(torch.cat([resize(row[None]) for row in laid]), whole)


def test_members_see_the_picture_at_their_own_size_and_normalise_it_themselves() -> None:
    small, large = surrogate(28, 0.2), surrogate(33, 0.5, seed=1)
    x = pictures(3)
    want = (small(Resize((30, 30), (28, 28))(x)) + large(Resize((30, 30), (33, 33))(x))) / 2
    both = unite(SPEC, [small, large], CPU)
    torch.testing.assert_close(both(x), want, rtol=1e-5, atol=1e-6)
    logits, features = both.look(x)
    assert torch.equal(logits, both(x))
    assert features.shape == (3, both.features) == (3, 20)


def test_a_member_of_the_ensembles_size_is_not_resized() -> None:
    model, x = surrogate(30), pictures(3)
    assert torch.equal(Member(model, SPEC.shape)(x), model(x))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_united_models_pass_the_probe(average: str) -> None:
    both = unite(
        SPEC, [surrogate(28), surrogate(33, 0.5)], CPU, "logits" if average == "logits" else "probabilities"
    )
    assert probe(both).name == "both"
    assert both.members == 2
    assert (both.spec.mean, both.spec.std) == ((0.0,), (1.0,))


def test_probabilities_are_the_members_means() -> None:
    models = [surrogate(28), surrogate(33, 0.5, seed=1)]
    x = pictures(4)
    features = unite(SPEC, models, CPU).look(x)[1]
    want = torch.stack([z.softmax(1) for z in torch.split(features, 10, 1)]).mean(0)
    got = unite(SPEC, models, CPU, "probabilities")(x)
    torch.testing.assert_close(got.exp(), want, rtol=1e-5, atol=1e-7)
    sure = [1e4 * torch.eye(10)[:2], 1e4 * torch.eye(10)[2:4]]
    assert Ensemble([torch.nn.Identity()] * 2, "probabilities").join(sure).isfinite().all()


def test_attack_on_united_models_moves_both() -> None:
    models = [surrogate(28, 0.2), surrogate(33, 0.5, seed=1)]
    both, x = unite(SPEC, models, CPU), pictures(8)
    label = both(x).topk(2).indices[:, 1]
    table = PGD.new(
        x,
        classes=10,
        label=label,
        targeted=torch.ones(8, dtype=torch.bool),
        epsilon=0.3,
        alpha=0.03,
        steps=40,
        stop=3,
    )
    alone.climb(table, both)
    for model in models:
        before, after = (
            model(Resize((30, 30), model.spec.shape[1:])(y)).log_softmax(1) for y in (x, table.x)
        )
        assert (after - before).gather(1, label[:, None]).gt(0.1).all()


def test_sha256_is_that_of_the_members() -> None:
    one, other = surrogate(28), surrogate(33)
    said = {unite(SPEC, models, CPU).sha256 for models in ([one, other], [other, one], [one, one])}
    assert len(said) == 3
    assert all(len(sha256) == 64 for sha256 in said)


def test_models_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ModelRefused, match="both: net-33: want the ensemble's 10 classes in its order, got 9"
    ):
        unite(SPEC, [surrogate(28), surrogate(33, classes=9)], CPU)
    with pytest.raises(ModelRefused, match="both: net-28: want 3 channels, got 1"):
        unite(replace(SPEC, shape=(3, 30, 30), mean=(0,) * 3, std=(1,) * 3), [surrogate(28)] * 2, CPU)
    with pytest.raises(ModelRefused, match="ensemble: want 2 members or more, got 1"):
        unite(SPEC, [surrogate(28)], CPU)
