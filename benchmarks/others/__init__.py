"""Other model servers with the same model, as contenders of serving.py.

    PEER_PYTHON others/NAME.py MODEL FILE

runs in the virtual environment of the peer NAME: beside the peer it needs torch, numpy and safetensors. It
writes the request to FILE, prints "PORT METHOD" when it serves, and passes go one at a time or, where the peer
batches, at most 8 together, with no delay. TorchServe is not among them: its authors have given it up.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("litserve", "pytriton")
MOST = 8  # rows of a pass


def found(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the peers that are installed in `folder`, each with its interpreter; say which are left out."""
    for name in NAMES:
        python = folder / name / "bin" / "python" if folder else None
        if python and python.exists():
            yield name, python
        else:
            reason = f"want {python}, got none" if python else "no --peers given"
            print(f"  ... {name}: left out: {reason}", file=sys.stderr)


def load(name: str) -> tuple[tuple[int, int, int], Callable[[Any], Any]]:
    """Return a model's [H, W, C] and a function from uint8 [n, H, W, C] to logits [n, K], arrays both."""
    import torch  # noqa: PLC0415 (this file is read without it)

    from iguana_server.models import catalog  # noqa: PLC0415

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = catalog.available()[name](torch.device("cpu"))
    channels, height, width = model.spec.shape

    def logits(pixels: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255).numpy()

    return (height, width, channels), logits


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
