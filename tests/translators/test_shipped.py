"""The translators with committed weights do what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from iguana_server import translators
from iguana_server.errors import ModelRefused
from iguana_server.models import fashion_mnist
from iguana_server.synthesis import catalog
from iguana_server.training import fashion_mnist as data
from iguana_server.translators import cyclegan, pix2pix
from iguana_server.translators.base import Translator
from iguana_server.translators.stored import FOLDER
from tests import clothes

CPU = torch.device("cpu")
NAMES = (*cyclegan.DIRECTIONS, pix2pix.NAME)


def translate(name: str, x: Tensor) -> Tensor:
    served = catalog.available(translators)[name](CPU)
    with torch.inference_mode():
        return torch.cat([served(part, torch.zeros(len(part), 0)) for part in torch.split(x, 50)])


def said(weights: Path, figure: str) -> float:
    """What the card tells."""
    text = re.sub(r"\s+", " ", weights.with_suffix(".md").read_text())
    found = re.search(rf"[ :]{figure} ([\d.]+)[,.]", text)
    assert found, figure
    return float(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_shipped_translator_passes_the_probe(name: str) -> None:
    served = catalog.load(translators, name)
    assert isinstance(served, Translator)
    assert served.sizes[0] == served.bucket


@pytest.mark.parametrize("module", [cyclegan, pix2pix])
def test_weights_are_those_of_their_card(module: object) -> None:
    weights, sha256 = module.WEIGHTS, module.SHA256  # type: ignore[attr-defined]
    assert f"sha256 of the weights: `{sha256}`" in weights.with_suffix(".md").read_text()
    assert all(tensor.dtype in (torch.float16, torch.int64) for tensor in load_file(weights).values())


def test_all_weights_have_a_card() -> None:
    files = list(FOLDER.glob("*.safetensors"))
    assert files
    assert [path.name for path in files if not path.with_suffix(".md").is_file()] == []


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    with pytest.raises(ModelRefused, match=r"weights.safetensors: want the weights in .*, got none"):
        pix2pix.load(CPU, other)
    content = bytearray(pix2pix.WEIGHTS.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(ModelRefused, match=rf"weights.safetensors: want sha256 {pix2pix.SHA256}, got "):
        pix2pix.load(CPU, other)


@pytest.mark.parametrize(
    ("name", "there", "source", "target"),
    [
        ("sneaker-to-boot", "a2b", "Sneaker", "Ankle boot"),
        ("boot-to-sneaker", "b2a", "Ankle boot", "Sneaker"),
    ],
)
def test_shoes_become_the_other_kind_as_often_as_the_card_says(
    name: str, there: str, source: str, target: str
) -> None:
    clothes.needed()
    images, labels = data.load(clothes.FOLDER, "t10k")
    x = images[labels == fashion_mnist.CLASSES.index(source)].float() / 255
    judge = fashion_mnist.CNN.load(CPU)
    with torch.inference_mode():
        y = translate(name, x)
        rates = [
            float((judge(z).argmax(1) == fashion_mnist.CLASSES.index(target)).float().mean()) for z in (x, y)
        ]
    assert rates[0] < 0.1
    assert rates[1] > 0.85
    assert rates[1] == pytest.approx(said(cyclegan.WEIGHTS, f"{there} target rate"), abs=0.005)


def test_shoes_come_back() -> None:
    clothes.needed()
    images, labels = data.load(clothes.FOLDER, "t10k")
    x = images[labels == fashion_mnist.CLASSES.index("Sneaker")].float() / 255
    there = translate("sneaker-to-boot", x)
    back = translate("boot-to-sneaker", there)
    cycle = functional.l1_loss(back, x).item()
    assert cycle == pytest.approx(said(cyclegan.WEIGHTS, "a2b cycle L1"), abs=0.002)
    assert cycle < 0.5 * functional.l1_loss(there, x).item()


def smiley() -> Tensor:
    """A face that no data set has: a ring, two eyes, a mouth; black, 2 pixels wide, on white; [1, 1, 64, 64]."""
    rows, columns = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    radius = (rows.square() + columns.square()).sqrt()
    eyes = ((rows + 6).square() + (columns.abs() - 7).square()).sqrt() < 2
    mouth = ((radius - 11).abs() < 1) & (rows > 5)
    return 1 - ((radius - 20.5).abs().lt(1) | eyes | mouth).float()[None, None]


def test_a_face_becomes_yellow_and_keeps_its_lines() -> None:
    x = smiley()
    y = translate(pix2pix.NAME, x)[0]
    assert y[:, x[0, 0] == 0].mean() < 0.25
    corners = torch.stack([y[:, :6, :6], y[:, -6:, :6], y[:, :6, -6:], y[:, -6:, -6:]])
    assert corners.min() > 0.9
    red, green, blue = y[:, 28:36, 24:40].flatten(1).mean(1)  # below the eyes, above the mouth
    assert min(red, green) > 0.7
    assert blue < 0.5
