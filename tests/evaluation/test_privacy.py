"""Synthetic sets: what they are, what they are good for, and who gives himself away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from iguana_server.errors import InvalidArgument
from iguana_server.evaluation import privacy
from iguana_server.evaluation.pictures import Pictures
from iguana_server.evaluation.privacy import PrivacyEvaluation
from iguana_server.evaluation.synthetic import IMAGES, LABELS, MANIFEST, synthesize
from iguana_server.generators.base import Generator
from iguana_server.training import fashion_mnist
from tests.evaluation import made

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.folder(tmp_path_factory.mktemp("data") / "clothes", train=300, test=120)


def copier() -> Generator:
    pixels, _ = made.clothes(300, 1)
    return made.generator(made.Copier(pixels), critic=made.Knows(pixels))


def bars() -> Generator:
    return made.generator(made.Bars())


def report_on(
    make: Callable[[], Generator], data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    made.serve(monkeypatch, make)
    synthesize("tried", 200, 0, folder / "synthetic", QUIET)
    asked = PrivacyEvaluation(synthetic=folder / "synthetic", data=data, out=folder / "out", epochs=1)
    return dict(asked.run(QUIET))


def test_a_synthetic_set_is_balanced_and_read_as_fashion_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.serve(monkeypatch, bars)
    synthesize("tried", 53, 7, tmp_path / "a", QUIET)
    pixels, labels = fashion_mnist.load(tmp_path / "a", "train")
    assert pixels.shape == (53, 1, 28, 28)
    assert torch.bincount(labels).tolist() == [6, 6, 6, *[5] * 7]
    told = json.loads((tmp_path / "a" / MANIFEST).read_text())
    assert (told["model"], told["model_sha256"], told["seed"], told["n"]) == ("tried", "0" * 64, 7, 53)
    synthesize("tried", 53, 7, tmp_path / "b", QUIET)
    for name in (IMAGES, LABELS, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_copier_gives_the_training_pictures_away(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_on(copier, data, tmp_path, monkeypatch)
    near, areas = report["neighbours"], report["membership_auc"]
    assert isinstance(near, dict)
    assert isinstance(areas, dict)
    assert (
        near["pixels"] | {"copies": 200, "synthetic_median": 0, "closer_than_test_1_percent": 1}
        == near["pixels"]
    )
    assert areas["distance in pixels"]["low"] > 0.6  # half of the training pictures are in the set
    assert areas[privacy.CRITIC]["value"] == 1
    assert report["without_critic"] is None
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())


def test_one_that_knows_no_picture_gives_nothing_away(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_on(bars, data, tmp_path, monkeypatch)
    near, areas = report["neighbours"], report["membership_auc"]
    assert isinstance(near, dict)
    assert isinstance(areas, dict)
    assert near["pixels"]["copies"] == 0
    assert near["pixels"]["synthetic_median"] == pytest.approx(near["pixels"]["test_median"], rel=0.05)
    assert near["pixels"]["closer_than_test_1_percent"] < 0.1
    area = areas["distance in pixels"]
    assert area["low"] < 0.5 < area["high"]
    assert privacy.CRITIC not in areas
    assert "not published" in str(report["without_critic"])
    accuracy = report["accuracy_on_real_test"]
    assert isinstance(accuracy, dict)
    assert set(accuracy) == {"synthetic", "real"}
    assert all(0 <= share <= 1 for share in accuracy.values())


def test_a_balanced_choice_has_each_class_alike() -> None:
    pixels, labels = made.clothes(100, 0)
    skewed = torch.cat([torch.arange(100), torch.zeros(50, dtype=torch.int64)])
    whole = Pictures("skewed", pixels[skewed].unsqueeze(1), labels[skewed])
    for seed in (0, 1):
        chosen = privacy._balanced(whole, 60, seed)
        assert chosen.labels is not None
        assert torch.bincount(chosen.labels).tolist() == [6] * 10


def test_a_set_that_was_changed_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.serve(monkeypatch, bars)
    synthesize("tried", 20, 0, tmp_path / "set", QUIET)
    (tmp_path / "set" / LABELS).write_bytes((data / "train-labels-idx1-ubyte.gz").read_bytes())
    asked = PrivacyEvaluation(synthetic=tmp_path / "set", data=data, out=tmp_path / "out")
    with pytest.raises(InvalidArgument, match=f"--synthetic: {LABELS}: want sha256"):
        asked.run(QUIET)
    with pytest.raises(InvalidArgument, match="want a folder of iguana-server synthesize"):
        PrivacyEvaluation(synthetic=data, data=data, out=tmp_path / "out").run(QUIET)


def test_generators_without_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.serve(monkeypatch, lambda: made.generator(made.Anything(), classes=()))
    with pytest.raises(
        InvalidArgument, match="want a generator of grey pictures by class, got tried: 0 classes"
    ):
        synthesize("tried", 20, 0, tmp_path, QUIET)
