"""Made pictures beside real ones: known answers of generators whose ways are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from iguana_server.errors import InvalidArgument
from iguana_server.evaluation import gan, sheets
from iguana_server.evaluation.gan import GanEvaluation
from iguana_server.evaluation.samples import draw
from iguana_server.metrics import frechet, kernel
from iguana_server.models.fashion_mnist import CLASSES
from iguana_server.rpc import picture
from tests.evaluation import made

QUIET = Console(quiet=True)
FEW = "fashion-mnist-ensemble"  # of 50 features, where the others have 864


@pytest.fixture(autouse=True)
def _few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time are the lines to endlessly many."""
    monkeypatch.setattr(frechet, "POINTS", 3)
    monkeypatch.setattr(kernel, "SUBSETS", 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.folder(tmp_path_factory.mktemp("data") / "clothes")


def test_a_copier_is_good_and_found_out(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, _ = made.clothes(150, 1)
    made.serve(monkeypatch, lambda: made.generator(made.Copier(pixels)))
    report = GanEvaluation(data=data, out=tmp_path, model="tried", n=120, splits=2).run(QUIET)
    for space in ("pixels", "features"):
        near = report["neighbours"][space]
        assert (near["made_median"], near["closer_than_real_1_percent"]) == (0, 1)
        assert near["real_median"] > 0
    assert report["made"]["fid"] < 1.5 * report["real_training_pictures"]["fid"]
    assert (
        report["manifest"]
        | {
            "extractor": "fashion-mnist-cnn",
            "resize": "none",
            "n_made": 120,
            "n_real": 120,
            "made_sha256": "0" * 64,
            "splits": 2,
            "kid_size": 120,
        }
        == report["manifest"]
    )
    assert report == json.loads((tmp_path / "report.json").read_text())
    page, text = ((tmp_path / name).read_text() for name in ("index.html", "report.md"))
    for file in ("samples", "extrapolation", "neighbours-pixels", "neighbours-features", "distances"):
        assert (tmp_path / f"{file}.png").is_file()
        assert f"({file}.png)" in text
        assert f'alt="{file}"' in page
    assert "https://" not in page


def test_the_real_pictures_are_no_worse_than_themselves(data: Path, tmp_path: Path) -> None:
    pixels, labels = made.clothes(120, 2)
    np.savez(tmp_path / "made.npz", images=pixels.numpy(), labels=labels.numpy())
    asked = GanEvaluation(
        data=data, out=tmp_path / "out", images=tmp_path / "made.npz", n=120, splits=1, extractor=FEW
    )
    report = asked.run(QUIET)
    assert abs(report["made"]["fid"]) < 1e-6
    assert (report["made"]["precision"], report["made"]["recall"]) == (1, 1)
    assert report["made"]["kid"] < 0  # without bias, and not cut off
    assert report["made"]["accuracy"] == report["classifier_on_real_pictures"]
    assert set(report["made"]["per_class"]) == set(CLASSES)


def test_noise_is_worse(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", images=rng.integers(0, 256, (120, 28, 28), np.uint8))
    asked = GanEvaluation(
        data=data, out=tmp_path / "out", images=tmp_path / "noise.npz", n=120, splits=1, extractor=FEW
    )
    report = asked.run(QUIET)
    assert report["made"]["fid"] > 5 * report["real_training_pictures"]["fid"]
    assert report["made"]["precision"] == 0
    assert report["made"]["accuracy"] is None  # nobody said what they are


def test_pictures_of_a_folder_are_taken_as_they_are(tmp_path: Path) -> None:
    pixels, _ = made.clothes(40, 2)
    (tmp_path / "png").mkdir()
    for i, one in enumerate(pixels):
        (tmp_path / "png" / f"{i:03}.png").write_bytes(picture.encode(one.unsqueeze(2).numpy()))
    out = tmp_path / "out"
    asked = GanEvaluation(
        data=tmp_path / "png", out=out, images=tmp_path / "png", n=40, splits=1, extractor=FEW
    )
    report = asked.run(QUIET)
    assert abs(report["made"]["fid"]) < 1e-4
    assert "neighbours" not in report
    assert report["real_training_pictures"] is None


def test_a_picture_is_of_its_seed_alone() -> None:
    bars = made.generator(made.Bars())
    few, labels = draw(bars, 5, 3)
    many, _ = draw(bars, 50, 3)
    assert torch.equal(few, many[:5])
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert not torch.equal(few, draw(bars, 5, 4)[0])
    with pytest.raises(InvalidArgument, match="seed: want 0 to 2"):
        draw(bars, 5, 2**32)


def test_what_cannot_be_compared_is_refused(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", images=np.zeros((30, 32, 32, 3), np.uint8))
    np.savez(tmp_path / "small.npz", images=np.zeros((30, 28, 28), np.uint8))
    large, small = tmp_path / "large.npz", tmp_path / "small.npz"
    (tmp_path / "weights.pth").write_bytes(b"none")
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "--model: want it or --images, got both or neither"),
        ({"images": small, "model": "x"}, "--model: want it or --images"),
        ({"images": small, "n": 31}, "--n: want at most the 30"),
        ({"images": small, "n": 10, "splits": 6}, "--splits: want 1 split or more"),
        ({"images": large, "n": 30}, r"--data: want pictures of \[3, 32, 32\], got \[1, 28, 28\]"),
        ({"images": large, "data": large, "n": 30}, "--extractor: want a classifier of such pictures"),
        ({"images": small, "n": 30, "extractor": "efficientnet-lite0"}, "--extractor: want a network that"),
        (
            {"images": small, "n": 30, "extractor": str(tmp_path / "weights.pth")},
            "--extractor: want the published",
        ),
        ({"images": tmp_path / "none", "n": 30}, "--images: want a folder or an .npz"),
    ]
    for given, want in cases:
        asked = {"data": data, "out": tmp_path / "out", "splits": 1, **given}
        with pytest.raises(InvalidArgument, match=want):
            GanEvaluation(**asked).run(QUIET)  # type: ignore[arg-type]


def test_the_command_writes_a_report_or_says_what_is_wrong(data: Path, tmp_path: Path) -> None:
    pixels, labels = made.clothes(60, 3)
    np.savez(tmp_path / "made.npz", images=pixels.numpy(), labels=labels.numpy())
    program = str(Path(sys.executable).parent / "iguana-server")
    command = [program, "evaluate", "gan", "--data", str(data), "--out", str(tmp_path / "out"), "--n", "60"]
    command += ["--extractor", FEW]
    done = subprocess.run(
        [*command, "--images", str(tmp_path / "made.npz")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("index.html")
    assert "FID" in done.stdout
    wrong = subprocess.run([*command, "--model", "nobody"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "nobody" in wrong.stderr


def test_the_sheet_shows_the_closest_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[float]] = []
    monkeypatch.setattr(sheets, "neighbours", lambda pairs, _: shown.append([one[2] for one in pairs]))
    pixels, _ = made.clothes(80, 5)
    np.savez(tmp_path / "made.npz", images=pixels.numpy())
    with pytest.raises(FileNotFoundError):  # the sheets that were not drawn
        GanEvaluation(
            data=data, out=tmp_path / "o", images=tmp_path / "made.npz", n=80, splits=1, extractor=FEW
        ).run(QUIET)
    for distances in shown:
        closest = distances[: gan.SHOWN // 2]
        assert len(distances) == gan.SHOWN
        assert closest == sorted(closest)
        assert max(closest) <= min(distances[gan.SHOWN // 2 :])
