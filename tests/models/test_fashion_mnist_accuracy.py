"""The shipped Fashion-MNIST classifier is as good as its card says, on the real test pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from iguana_server.models import fashion_mnist
from iguana_server.training import fashion_mnist as data

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
CARD = fashion_mnist.WEIGHTS.with_suffix(".md")


def test_shipped_classifier_is_as_accurate_as_its_card() -> None:
    if not (FOLDER / "t10k-images-idx3-ubyte.gz").exists():
        if "fashion-mnist" in os.environ.get("IGUANA_REQUIRE", ""):
            pytest.fail(
                f"IGUANA_REQUIRE has fashion-mnist: want its files in {FOLDER}, got none"
                " (apt-get install dataset-fashion-mnist)"
            )
        pytest.skip(f"no files in {FOLDER} (apt-get install dataset-fashion-mnist)")
    said = re.search(r"Test accuracy: ([\d.]+)% of 10,000 test pictures", CARD.read_text())
    assert said, CARD
    images, labels = data.load(FOLDER, "t10k")
    model = fashion_mnist.load(torch.device("cpu"))
    with torch.inference_mode():
        seen = torch.cat(
            [model(images[i : i + 500].float() / 255).argmax(1) for i in range(0, len(images), 500)]
        )
    right = (seen == labels).double()
    assert len(right) == 10_000
    assert right[:2000].mean() >= 0.92
    assert 100 * float(right.mean()) == pytest.approx(float(said[1]), abs=0.05)
