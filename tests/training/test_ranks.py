"""Several processes train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from iguana_server.training.recipes import gan
from tests.training import ranked, ranked_gan


def run_two(module: str, folder: Path, out: Path) -> None:
    """Run a module as two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    command += ["-m", module, str(folder), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr


def same(one: Path, two: Path) -> None:
    """Check that both processes have the same tensors, and nearly those of the one alone."""
    alone, first, second = [
        load_file(path / name)
        for path, name in ((one, "0.safetensors"), (two, "0.safetensors"), (two, "1.safetensors"))
    ]
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-3, atol=1e-5, msg=key)
    assert json.loads((two / "net.json").read_text())["processes"] == 2


def test_two_processes_train_as_one_does(folder: Path, tmp_path: Path) -> None:
    """192 pictures in batches of 37: the processes' shares are never equal, and the last batch has 7."""
    ranked.main(folder, tmp_path / "one")
    run_two("tests.training.ranked", folder, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")


def test_two_processes_play_as_one_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "JUDGED", gan.JUDGED)  # for it to be set back
    ranked_gan.main(folder, tmp_path / "one")
    run_two("tests.training.ranked_gan", folder, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")
