"""TensorBoard's logs of a run, where TensorBoard is installed: `pip install 'iguana-server[training]'`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor


class Board:
    """Scalars of every epoch, in event files of a folder; without TensorBoard, nothing is written."""

    def __init__(self, folder: Path, epochs: int) -> None:
        """Open the logs of a run that has `epochs` behind it; what an older log says of later ones is void."""
        self.writer: Any = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (optional)

            self.writer = SummaryWriter(str(folder), purge_step=epochs + 1)

    def write(self, entry: Mapping[str, float]) -> None:
        """Log an epoch's figures, under its number."""
        if self.writer:
            for key, value in entry.items():
                if key != "epoch":
                    self.writer.add_scalar(key, value, int(entry["epoch"]))
            self.writer.flush()

    def show(self, pictures: Mapping[str, Tensor], epoch: int) -> None:
        """Log an epoch's pictures, pixels [C, H, W] in [0, 1]."""
        if self.writer:
            for key, picture in pictures.items():
                self.writer.add_image(key, picture, epoch)
            self.writer.flush()
