"""The shipped Fashion-MNIST classifiers are as good as their cards say, on the real test pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iguana_server.models import fashion_mnist
from iguana_server.models.fashion_mnist import CNN, ROBUST, Trained
from iguana_server.training import fashion_mnist as data
from iguana_server.training.evaluation import accuracy, robust_accuracy

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
CPU = torch.device("cpu")
LEAST = {"fashion-mnist-cnn": 0.92, "fashion-mnist-ensemble": 0.92, "fashion-mnist-robust": 0.86}


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    if not (FOLDER / "t10k-images-idx3-ubyte.gz").exists():
        if "fashion-mnist" in os.environ.get("IGUANA_REQUIRE", ""):
            pytest.fail(
                f"IGUANA_REQUIRE has fashion-mnist: want its files in {FOLDER}, got none"
                " (apt-get install dataset-fashion-mnist)"
            )
        pytest.skip(f"no files in {FOLDER} (apt-get install dataset-fashion-mnist)")
    return data.load(FOLDER, "t10k")


def said(trained: Trained, what: str) -> float:
    """The share that the card tells."""
    found = re.search(rf"{what}: ([\d.]+)% of ", trained.weights.with_suffix(".md").read_text())
    assert found, trained.name
    return float(found[1]) / 100


@pytest.mark.parametrize("trained", fashion_mnist.TRAINED, ids=lambda trained: trained.name)
def test_shipped_classifier_is_as_accurate_as_its_card(
    trained: Trained, pictures: tuple[Tensor, Tensor]
) -> None:
    images, labels = pictures
    assert len(labels) == 10_000
    right = accuracy(trained.load(CPU), images, labels)
    assert right >= LEAST[trained.name]
    assert right == pytest.approx(said(trained, "Test accuracy"), abs=0.0005)


def test_adversarially_trained_classifier_is_robust_and_the_standard_one_is_not(
    pictures: tuple[Tensor, Tensor],
) -> None:
    """PGD-20 at epsilon 0.1: the first 200 test pictures, so within four standard deviations of the card."""
    images, labels = (column[:200] for column in pictures)
    got = {model.name: robust_accuracy(model.load(CPU), images, labels, 0.1) for model in (CNN, ROBUST)}
    assert got[CNN.name] <= 0.02
    assert got[ROBUST.name] == pytest.approx(said(ROBUST, "Robust accuracy"), abs=0.12)
    assert got[ROBUST.name] > 0.6
