"""The shipped GAN: its classes are seen, its pictures are as even as photographs, its critic can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iguana_server import generators
from iguana_server.errors import ModelRefused
from iguana_server.generators import fashion_mnist as model
from iguana_server.generators.base import Generator
from iguana_server.models import fashion_mnist as classifier
from iguana_server.synthesis import catalog
from iguana_server.training import fashion_mnist as files
from tests import clothes

CPU = torch.device("cpu")
N = 500


@pytest.fixture(scope="module")
def gan() -> Generator:
    """As it is served: the probe of rows and sizes is part of loading."""
    found = catalog.load(generators, "fashion-mnist-gan")
    assert isinstance(found, Generator)
    return found


def drawn(gan: Generator) -> tuple[Tensor, Tensor]:
    """Pictures of N codes, as many of each class, and the classes."""
    z = torch.randn(N, model.LATENT, generator=torch.Generator().manual_seed(7))
    label = torch.arange(N) % 10
    with torch.inference_mode():
        return gan(z, label), label


def photographs() -> tuple[Tensor, Tensor]:
    clothes.needed()
    images, labels = files.load(clothes.FOLDER, "t10k")
    return images[:N].float() / 255, labels[:N]


def test_networks_are_as_small_as_they_are_said_to_be(gan: Generator) -> None:
    assert gan.critic is not None
    assert [sum(p.numel() for p in net.parameters()) for net in (gan.net, gan.critic.net)] == [464905, 112489]
    assert model.WEIGHTS.stat().st_size < 1.5e6
    card = model.WEIGHTS.with_suffix(".md").read_text()
    assert model.SHA256 in card
    assert "464,905" in card


def test_classifier_sees_the_class_that_was_asked_for(gan: Generator) -> None:
    pictures, label = drawn(gan)
    seen = classifier.CNN.load(CPU)(pictures).argmax(1)
    assert float((seen == label).float().mean()) >= 0.9
    assert all(float((seen[label == k] == k).float().mean()) > 0.5 for k in range(10))


def test_codes_of_a_class_give_pictures_of_many_kinds(gan: Generator) -> None:
    """A generator that has collapsed gives one."""
    (pictures, label), (real, labels) = drawn(gan), photographs()
    for k in range(10):
        spread, wanted = (float(x.std(0).mean()) for x in (pictures[label == k], real[labels == k]))
        assert spread > wanted / 2, k


def test_there_is_no_checkerboard(gan: Generator) -> None:
    """Which would be power at the highest frequencies, of period 2, that photographs do not have."""

    def power(pictures: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(pictures).abs().square().mean((0, 1))
        powers = torch.stack([spectrum[14, 14], spectrum[14].sum() + spectrum[:, 14].sum()])
        return powers.div(spectrum.sum())

    real, _ = photographs()
    here = power(drawn(gan)[0]) / power(real)
    assert (here < 3).all(), here
    board = torch.ones(28, 28)
    board[::2, ::2] = board[1::2, 1::2] = -1
    planted = power(real + 0.05 * board) / power(real)
    assert planted[0] > 30, planted


def test_every_pixel_has_as_many_taps_as_its_neighbours() -> None:
    """An upsampling whose kernel its stride divides covers the inside of a picture evenly (Odena et al. 2016)."""
    for up in model.Net().up:
        assert isinstance(up, nn.ConvTranspose2d)
        nn.init.ones_(up.weight)
        with torch.no_grad():
            taps = up(torch.ones(1, up.in_channels, 7, 7))[0, 0, 2:-2, 2:-2]
        assert (taps == taps[0, 0]).all()


def test_critic_takes_more_photographs_than_made_pictures_for_real(gan: Generator) -> None:
    """It knows nothing else: noise, or a picture under a wrong class, is nothing that its generator ever made."""
    assert gan.critic is not None
    with torch.inference_mode():
        real, made = ((gan.critic(*rows) > 0).float().mean() for rows in (photographs(), drawn(gan)))
    assert float(real - made) > 0.3


def test_gradient_reaches_the_code(gan: Generator) -> None:
    z = torch.randn(3, model.LATENT, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (grad,) = torch.autograd.grad(gan(z, torch.tensor([1, 5, 9])).sum(), z)
    assert (grad.abs().amax(1) > 0).all()


def test_class_norm_scales_and_shifts_by_the_class() -> None:
    norm = model.ClassNorm(4, lambda _: nn.Identity())
    for table in (norm.gain, norm.bias):
        nn.init.normal_(table.weight)
    x, label = torch.randn(6, 4, 3, 3), torch.tensor([0, 9, 3, 3, 1, 0])
    got = norm(x, label)
    for i, k in enumerate(label):
        want = x[i] * norm.gain.weight[k][:, None, None] + norm.bias.weight[k][:, None, None]
        torch.testing.assert_close(got[i], want)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(model.WEIGHTS.read_bytes())
    content[-1] ^= 1
    other = tmp_path / "fashion_mnist_gan.safetensors"
    other.write_bytes(content)
    monkeypatch.setattr(model, "WEIGHTS", other)
    with pytest.raises(ModelRefused, match=r"^fashion_mnist_gan.safetensors: want sha256 0d6a19c1.*, got "):
        model.load(CPU)
