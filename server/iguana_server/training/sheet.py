"""Pictures of a run: grids, written as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from iguana_server.training import checkpoint


def grid(pictures: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Lay pictures [n, C, H, W] in [0, 1] out in rows of `columns`, `gap` white pixels apart: [C, H', W']."""
    n, c, h, w = pictures.shape
    rows = -(-n // columns)
    blank = pictures.new_ones(rows * columns - n, c, h, w)
    cells = functional.pad(torch.cat([pictures, blank]), (0, gap, 0, gap), value=1.0)
    cells = cells.view(rows, columns, c, h + gap, w + gap).permute(2, 0, 3, 1, 4)
    return cells.reshape(c, rows * (h + gap), columns * (w + gap))[:, :-gap, :-gap]


def write(path: Path, picture: Tensor) -> None:
    """Write a picture, pixels [1 or 3, H, W] in [0, 1], as PNG; the old file or the new one, never half of one."""
    levels = picture.detach().clamp(0, 1).mul(255).round().byte()
    array = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).contiguous().numpy()
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    checkpoint.replace(path, content.getvalue())
