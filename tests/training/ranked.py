"""One process of a training run of several: `python -m torch.distributed.run ... -m tests.training.ranked DATA OUT`.

The network has no BatchNorm, whose statistics are of a process's own pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from iguana_server.training import ranks
from iguana_server.training.recipes.online import Online
from iguana_server.training.run import Run


class Flat(Online):
    """A linear network, trained adversarially."""

    def net(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


def main(data: Path, out: Path) -> None:
    """Train, and save the weights as every process has them."""
    torch.set_num_threads(1)
    with ranks.joined():
        run = Run(data, out, Flat(epochs=2, batch=37, peak=0.01, epsilon=0.05, steps=2), seed=1)
        losses = [torch.tensor(entry["loss"], dtype=torch.float64) for entry in run.epochs()]
        save_file(run.net.state_dict() | {"losses": torch.stack(losses)}, out / f"{ranks.rank()}.safetensors")
        run.export("net")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
