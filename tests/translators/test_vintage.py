"""The CycleGAN that comes in a package: right weights, served as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iguana_server import translators
from iguana_server.models import packaged
from iguana_server.synthesis import catalog
from iguana_server.synthesis.probe import probe
from iguana_server.translators import doctor, vintage
from tests.translators import published

pytestmark = pytest.mark.usefixtures("vintagify")


def file() -> Path:
    return packaged.locate("vintagify", "resources/G_A2B_epoch33.pth")


def test_vintage_is_the_packaged_checkpoint(cache: Path) -> None:
    served = vintage.load(torch.device("cpu"), cache)
    content, sha256 = packaged.read(file())
    assert sha256 == vintage.SHA256
    state = {doctor.rename(key): tensor for key, tensor in content.items()}
    x = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    want = published.resnet(state, 2 * x - 1, 9, "instance-affine").add(1).div(2)
    torch.testing.assert_close(served(x, torch.zeros(1, 0)), want, rtol=0, atol=1e-4)


def test_vintage_passes_the_probe(cache: Path) -> None:
    served = vintage.load(torch.device("cpu"), cache)
    assert probe(served) == (served.bucket,)
    assert vintage.NAME in catalog.available(translators)


def test_doctor_names_the_packaged_checkpoint() -> None:
    report = doctor.examine(file())
    assert (report.architecture, report.depth, report.width, report.norm) == (
        "resnet",
        9,
        64,
        "instance-affine",
    )
    assert (report.inputs, report.outputs, report.dropout, report.direction) == (3, 3, False, "A to B")
    assert report.repairs == ("'block' of the residual blocks read as 'conv_block'",)
    assert report.parameters == 11_388_675
