"""One process of a game of several: `python -m torch.distributed.run ... -m tests.training.ranked_gan DATA OUT`.

No network has BatchNorm, whose statistics are of a process's own pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from iguana_server.training import ranks
from iguana_server.training.match import Match
from iguana_server.training.recipes import gan


def main(data: Path, out: Path) -> None:
    """Train, and save the state as every process has it."""
    torch.set_num_threads(1)
    gan.JUDGED = 20
    with ranks.joined():
        game = gan.GAN(epochs=2, steps=3, batch=12, width=4, virtual=True, spectral=True, critic_steps=2)
        match = Match(data, out, game, seed=1)
        log = [{k: v for k, v in entry.items() if "seconds" not in k} for entry in match.epochs()]
        figures = {key: torch.tensor([entry[key] for entry in log]) for key in log[0]}
        save_file(match.players.tensors() | figures, out / f"{ranks.rank()}.safetensors")
        match.export("net")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
