"""A user's own generator or translator, by a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.generators.base import Generator
from iguana_server.networks import load_manifest
from iguana_server.translators.base import Translator
from iguana_server.translators.resnet import ResnetGenerator
from tests.made import CLASSES, LATENT, SHAPE, Conditional

CPU = torch.device("cpu")
STYLED = f"""
kind = "generator"
name = "own"
latent = {LATENT}
classes = ["cat", "iguana", "agama"]
shape = [3, 8, 12]
bucket = 4
max_batch = 8
description = "mine"
licence = "mine"
source = "here"
weights = "own.safetensors"
factory = "tests.test_networks:factory"
"""
TURNED = """
kind = "translator"
name = "turned"
channels = [1, 1]
scale = 1
multiple = 1
span = [0, 1]
side = 32
overlap = 2
bucket = 4
max_batch = 8
description = "mine"
licence = "mine"
source = "here"
weights = "own.safetensors"
factory = "tests.test_networks:blur"
"""


def factory() -> nn.Module:
    return Conditional(len(CLASSES))


def blur() -> nn.Module:
    return nn.Conv2d(1, 1, 3, padding=1)


class Mixing(nn.Module):
    """Looks at other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Conditional(len(CLASSES))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        made: Tensor = self.net(z - z.mean(0), label)
        return made


def written(folder: Path, text: str, net: nn.Module) -> Path:
    save_file(net.state_dict(), folder / "own.safetensors")
    path = folder / "own.toml"
    path.write_text(text)
    return path


def test_a_generator_of_a_factory_is_served(tmp_path: Path) -> None:
    net = factory()
    made = load_manifest(written(tmp_path, STYLED, net), CPU)
    assert isinstance(made, Generator)
    assert (made.spec.latent, made.spec.classes, made.spec.shape) == (LATENT, CLASSES, SHAPE)
    assert made.sizes[0] == 4
    z, label = made.example(4, torch.Generator().manual_seed(0))
    assert torch.allclose(made(z, label), (net(z, label) + 1) / 2, atol=1e-6)


def test_a_translator_of_a_factory_is_served(tmp_path: Path) -> None:
    made = load_manifest(written(tmp_path, TURNED, blur()), CPU)
    assert isinstance(made, Translator)
    assert (made.spec.span, made.spec.side, made.spec.least, made.spec.styles) == ((0.0, 1.0), 32, 16, ())


def test_a_checkpoint_is_known_by_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ResnetGenerator(3, 3, 8, 6, "instance")
    torch.save(net.state_dict(), tmp_path / "latest_net_G_A.pth")
    path = tmp_path / "own.toml"
    path.write_text('kind = "translator"\nname = "zebra"\ncheckpoint = "latest_net_G_A.pth"\nside = 32\n')
    made = load_manifest(path, CPU)
    assert isinstance(made, Translator)
    assert (made.spec.name, made.spec.channels, made.spec.multiple, made.spec.side) == (
        "zebra",
        (3, 3),
        4,
        32,
    )
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(made(x, torch.zeros(1, 0)), (net.eval()(2 * x - 1) + 1) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("kind", "critic"), "kind: want generator or translator, got 'critic'"),
        (("latent = 12", ""), "latent: missing"),
        (("latent = 12", "latent = 12\ncolour = 1"), "colour: no such key"),
        (("latent = 12", 'latent = "many"'), "latent: Input should be a valid integer"),
        (("latent = 12", "latent = 0"), "latent: want 1 number or more, got 0"),
        (("latent = 12", "latent = 11"), "own: forward: want an answer a row, got"),
        (("shape = [3, 8, 12]", "shape = [3, 8]"), "shape"),
        (("own.safetensors", "../own.safetensors"), "weights: want a path inside the manifest's folder"),
        (("own.safetensors", "none.safetensors"), "weights: want a file, got none"),
        ((":factory", ":nothing"), "factory: want tests.test_networks:nothing, got"),
        ((":factory", ":blur"), "weights: want those of tests.test_networks:blur"),
        (("bucket = 4", 'bucket = 4\nsha256 = "00"'), "sha256: want 00, got"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = STYLED.replace('"generator"', '"critic"') if change[0] == "kind" else STYLED.replace(*change)
    with pytest.raises(ModelRefused) as refusal:
        load_manifest(written(tmp_path, text, factory()), CPU)
    assert said in str(refusal.value)


def test_rows_that_look_at_each_other_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, STYLED.replace(":factory", ":Mixing"), Mixing())
    with pytest.raises(ModelRefused, match="want the same bits in any slot and company"):
        load_manifest(path, CPU)
