"""Several processes train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.training import ranked


def test_two_processes_train_as_one_does(folder: Path, tmp_path: Path) -> None:
    """192 pictures in batches of 37: the processes' shares are never equal, and the last batch has 7."""
    one, two = tmp_path / "one", tmp_path / "two"
    ranked.main(folder, one)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    command += ["-m", "tests.training.ranked", str(folder), str(two)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    alone, first, second = [
        load_file(path / name)
        for path, name in ((one, "0.safetensors"), (two, "0.safetensors"), (two, "1.safetensors"))
    ]
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)
    assert json.loads((two / "net.json").read_text())["processes"] == 2
