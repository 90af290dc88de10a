"""Sheets of pictures, and plots of distances, as PNG files. matplotlib is an extra: iguana-server[plots]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iguana_server.metrics import roc
from iguana_server.rpc import picture

ZOOM = 2  # screen pixels of a small picture's pixel
GAP = 1  # pixels between pictures
WIDTH = 1200  # pixels of a sheet beyond which nothing is magnified


def grid(pixels: Tensor, path: Path, *, columns: int) -> None:
    """Lay pictures, uint8 [n, C, H, W], out in rows, on white."""
    n, c, h, w = pixels.shape
    rows = -(-n // columns)
    sheet = torch.full((c, rows * (h + GAP) + GAP, columns * (w + GAP) + GAP), 255, dtype=torch.uint8)
    for i, one in enumerate(pixels):
        top, left = (i // columns) * (h + GAP) + GAP, (i % columns) * (w + GAP) + GAP
        sheet[:, top : top + h, left : left + w] = one
    if sheet.shape[2] * ZOOM <= WIDTH:
        sheet = sheet.repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2)
    path.write_bytes(picture.encode(sheet.permute(1, 2, 0).contiguous().numpy()))


def neighbours(pairs: Sequence[tuple[Tensor, Tensor, float]], path: Path, *, columns: int = 8) -> None:
    """Made pictures beside the nearest training pictures, uint8 [C, H, W], with the distances over them."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, here and below

    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(1.9 * columns, 1.25 * rows), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for axes, (made, found, distance) in zip(cells.flat, pairs, strict=False):
        both = torch.cat([made, torch.full_like(made[:, :, :1], 255), found], 2).permute(1, 2, 0).numpy()
        axes.imshow(both[..., 0] if both.shape[2] == 1 else both, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{distance:.2f}", fontsize="small")
    figure.savefig(path, dpi=110)


def distances(panels: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Histograms of distances, a panel a space, a line a set."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6 * len(panels), 3.6), layout="constrained")
    for axes, (title, sets) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        top = max(values.quantile(0.99).item() for values in sets.values())
        bins = np.linspace(0, top, 60)
        for name, values in sets.items():
            axes.hist(values.numpy(), bins=bins, histtype="step", density=True, label=name)
        axes.set(xlabel=f"distance to the nearest, {title}", yticks=[])
        axes.legend(fontsize="small")
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=110)


def curves(attacks: Mapping[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """ROC curves of scores of members and of others."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, (members, others) in attacks.items():
        x, y = roc.curve(members, others)
        axes.plot(x, y, label=f"{name}: AUC {roc.auc(members, others).value:.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axes.set(
        xlabel="others taken for members", ylabel="members found", xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def extrapolation(found: Any, path: Path) -> None:
    """The FID against 1 / n, and the line to 1 / n = 0."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    x = [1 / n for n in found.sizes]
    slope, _ = np.polyfit(x, found.distances, 1)
    axes.plot(x, found.distances, "o", label="FID of so many")
    axes.plot([0, x[0]], [found.infinity, found.infinity + slope * x[0]], label=f"to {found.infinity:.3g}")
    axes.set(xlabel="1 / pictures made", ylabel="FID", xlim=(0, None))
    axes.legend(fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
