"""An evaluation from end to end: real servers, a real model."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from iguana import Client, Unavailable
from iguana_server.errors import FailedPrecondition, InvalidArgument
from iguana_server.evaluation import local
from iguana_server.evaluation.robustness import JOURNAL, PAGE, PICTURES, REPORT, Evaluation
from tests.endtoend.conftest import running

MODEL = "fashion-mnist-cnn"
N = 10


def _pictures(path: Path) -> Path:
    """Squares on black, which the model takes for one thing or another, labelled as it sees half of them."""
    images = np.zeros((N, 28, 28, 1), np.uint8)
    for i in range(N):
        images[i, 4 : 8 + 2 * i, 14 - i : 14 + i + 1] = 90 + 15 * i
    np.savez(path, images=images, labels=np.full(N, 8))
    return path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local.serving(local.flags(MODEL, None, "cpu")) as address:
        yield address


def _asked(folder: Path) -> Evaluation:
    return Evaluation(
        data=_pictures(folder / "data.npz"),
        attacks=["fgsm", "pgd:steps=5:random_start=true", "pgdl2:steps=3", "ddn:steps=8"],
        linf=[0.02, 0.2],
        l2=[0.5],
        out=folder / "out",
        batch=4,
        seed=3,
        diagnose=False,
    )


@pytest.fixture
def asked(tmp_path: Path) -> Evaluation:
    return _asked(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, address: str) -> tuple[Evaluation, dict[str, Any]]:
    """An evaluation that has run to its end, and its report."""
    asked = _asked(tmp_path_factory.mktemp("whole"))
    return asked, evaluate(asked, address)


def evaluate(asked: Evaluation, address: str) -> dict[str, Any]:
    said = io.StringIO()
    with Client(address) as client:
        made = asked.run(client, MODEL, Console(file=said, width=160))
    assert "pgdl2:steps=3" in said.getvalue()
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def opened(path: Path) -> NDArray[np.float64]:
    """The pixels of a picture file, in grey levels."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.float64)


def untimed(value: Any) -> Any:
    """The report without seconds, the only figures that may differ."""
    if isinstance(value, dict):
        return {name: untimed(one) for name, one in value.items() if name != "seconds"}
    return [untimed(one) for one in value] if isinstance(value, list) else value


def test_a_report_counts_as_it_says(asked: Evaluation, address: str) -> None:
    made = evaluate(replace(asked, diagnose=True), address)
    assert made == json.loads((asked.out / REPORT).read_text())
    right = made["clean"]["accuracy"] * N
    assert 0 < right < N
    for trial in made["trials"]:
        assert trial["held"] + trial["fooled"] + trial["already"] + trial["failed"] == N
        assert trial["already"] == N - right
        assert trial["robust_accuracy"] == trial["held"] / N
        assert trial["success_rate"] == trial["fooled"] / right
    weak, strong = made["trials"][2:4]
    assert strong["fooled"] > weak["fooled"]
    assert strong["mean_linf"] > weak["mean_linf"] or not weak["fooled"]
    assert made["trials"][5]["success_rate"] == 1.0  # ddn
    together = next(c for c in made["curves"] if c["attack"] == "all together" and c["norm"] == "linf")
    others = [c for c in made["curves"] if c["norm"] == "linf" and c is not together]
    for i, accuracy in enumerate(together["accuracy"]):
        assert accuracy <= min(other["accuracy"][i] for other in others)
    assert together["accuracy"] == sorted(together["accuracy"], reverse=True)
    assert made["worst"]
    for entry in made["worst"]:
        clean, forged = (
            opened(asked.out / PICTURES / entry[f"{side}_picture"]) / 255 for side in ("clean", "forged")
        )
        assert np.abs(forged - clean).max() == pytest.approx(entry["linf"], abs=1e-6)
        assert entry["after"][0] != entry["label"]
    for name in ("accuracy.png", "classes.png", "worst.png"):
        assert opened(asked.out / name).shape[1] > 100


def test_an_ended_run_goes_on_and_says_the_same(
    whole: tuple[Evaluation, dict[str, Any]], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, wanted = whole
    again = replace(asked, out=tmp_path / "again")
    calls: list[str] = []
    watch = Client.watch

    def counted(client: Client, images: Any, method: str = "pgd", **options: Any) -> Any:
        calls.append(method)
        if len(calls) == 5:
            raise Unavailable("gone")
        return watch(client, images, method, **options)

    monkeypatch.setattr(Client, "watch", counted)
    with pytest.raises(Unavailable):
        evaluate(again, address)
    journal = again.out / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"trial": "half a li')
    made = evaluate(again, address)
    assert untimed(made) == untimed(wanted)
    batches, trials = 3, len(wanted["trials"])
    assert len(calls) == batches * trials + 1  # each batch once, but for the one that failed
    evaluate(replace(again, attacks=asked.attacks[:3]), address)
    assert len(calls) == batches * trials + 1
    assert len(journal.read_text().splitlines()) == 1 + batches * (1 + trials)


def test_a_folder_of_another_evaluation_is_refused(asked: Evaluation, address: str) -> None:
    one = replace(asked, attacks=["fgsm"], linf=[0.1])
    with Client(address) as client:
        one.run(client, MODEL, Console(file=io.StringIO()))
        with pytest.raises(InvalidArgument, match=r"--out: want seed 3 as in .*, or another folder, got 4"):
            replace(one, seed=4).run(client, MODEL, Console(file=io.StringIO()))


def test_a_server_elsewhere_says_the_same(whole: tuple[Evaluation, dict[str, Any]], tmp_path: Path) -> None:
    asked, here = whole
    with running(tmp_path / "log", "--models.load", MODEL, "--server.drain_notice_s", "0") as (_, ready):
        there = evaluate(replace(asked, out=tmp_path / "there"), str(ready["address"]))
    assert untimed(there) == untimed(here)
    files = sorted(path.name for path in (asked.out / PICTURES).iterdir())
    assert files
    for name in files:
        assert (asked.out / PICTURES / name).read_bytes() == (
            tmp_path / "there" / PICTURES / name
        ).read_bytes()


def test_the_page_holds_all_it_shows(whole: tuple[Evaluation, dict[str, Any]]) -> None:
    asked, made = whole
    page = (asked.out / PAGE).read_text()
    assert "://" not in page
    assert not re.search(r"<(script|link|iframe|object)|url\(|@import|href", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2 + 2 * len(made["worst"])
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for trial in made["trials"]:
        assert trial["attack"] in page


class Masked(nn.Module):
    """Logits so large that the softmax has no gradient left."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 6 * 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 3000 * self.last(x.flatten(1))
        return logits


def test_masked_gradients_are_named_and_not_called_robustness(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Masked()
    save_file(net.state_dict(), tmp_path / "masked.safetensors")
    manifest = tmp_path / "masked.toml"
    manifest.write_text(
        'name = "masked"\nshape = [3, 6, 6]\nclasses = ["a", "<b>", "c"]\nmean = [0.5, 0.5, 0.5]\n'
        'std = [0.5, 0.5, 0.5]\nresize = 6\nbucket = 4\nmax_batch = 8\ndescription = "hides"\n'
        'licence = "none"\nsource = "random"\nweights = "masked.safetensors"\n'
        'factory = "tests.evaluation.test_robustness:Masked"\n'
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    with torch.inference_mode():
        seen = net((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).argmax(1)
    np.savez(tmp_path / "data.npz", images=images, labels=seen.numpy())
    asked = Evaluation(
        data=tmp_path / "data.npz", attacks=["pgd"], linf=[0.1], l2=[], out=tmp_path / "out", diagnose=False
    )
    said = io.StringIO()
    with local.serving(local.flags("", manifest, "cpu")) as address, Client(address) as client:
        made = asked.run(client, "", Console(file=said, width=160))
    (trial,) = made["trials"]
    assert trial["robust_accuracy"] > 0.5
    assert trial["suspicions"]["zero_gradients"] > 4
    assert trial["warning"].startswith("not robustness: ")
    assert "gradients were zero (8 of 8)" in trial["warning"]
    assert "WARNING pgd 0.1: not robustness" in said.getvalue()
    page = (tmp_path / "out" / PAGE).read_text()
    assert "⚠ not robustness" in page
    assert "&lt;b&gt;" in page
    assert made["curves"][0]["suspect"] == [False, True]


def test_plots_are_asked_for_before_the_work(
    asked: Evaluation, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "iguana_server.evaluation.curves.find_spec",
        lambda name: None if name == "matplotlib" else util.find_spec(name),
    )
    with Client(address) as client, pytest.raises(FailedPrecondition, match=r"iguana-server\[plots\]"):
        asked.run(client, MODEL, Console(file=io.StringIO()))
    assert not asked.out.exists()


def test_the_command_evaluates_and_refuses(tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data.npz")
    command = [
        str(Path(sys.executable).parent / "iguana-server"),
        "evaluate",
        "robustness",
        "--data",
        str(data),
    ]
    command += ["--out", str(tmp_path / "out"), "--samples", "3", "--attacks", "fgsm", "--epsilons", "4/255"]
    told = [*command, "--model", MODEL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as wrong:
        done = subprocess.run(told, capture_output=True, text=True, check=False)
        said = wrong.communicate()[1]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert json.loads((tmp_path / "out" / REPORT).read_text())["samples"] == 3
    assert (wrong.returncode, said) == (2, "--model: want it or --manifest, got both or neither\n")
