"""The report's plots, as PNG files. matplotlib is an extra: iguana-server[plots]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from iguana_server.errors import FailedPrecondition

EXTRA = "plots"  # of the server's distribution
_NORMS = {"linf": "Linf, in units of a [0, 1] pixel", "l2": "L2 over all pixels and channels"}


def require() -> None:
    """Raise FailedPrecondition where matplotlib is missing: before hours of work, not after."""
    if find_spec("matplotlib") is None:
        raise FailedPrecondition(
            f"matplotlib: want it for the plots, got none; pip install 'iguana-server[{EXTRA}]'"
        )


def accuracy(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the radius, a panel a norm; points that are no robustness are hollow."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, here and below

    norms = list(dict.fromkeys(curve["norm"] for curve in curves))
    figure = Figure(figsize=(6.5 * len(norms), 4), layout="constrained")
    for axes, norm in zip(figure.subplots(1, len(norms), squeeze=False)[0], norms, strict=True):
        for curve in (curve for curve in curves if curve["norm"] == norm):
            x, y = curve["epsilons"], [100 * value for value in curve["accuracy"]]
            together = curve["attack"] == "all together"
            style = {"color": "black", "linestyle": "--"} if together else {}
            (line,) = axes.plot(x, y, label=curve["attack"], **style)
            for suspect in (False, True):
                points = [i for i, value in enumerate(curve["suspect"]) if value == suspect]
                axes.plot(
                    [x[i] for i in points],
                    [y[i] for i in points],
                    linestyle="none",
                    marker="o",
                    color=line.get_color(),
                    markerfacecolor="white" if suspect else line.get_color(),
                )
        axes.set(
            xlabel=f"radius: {_NORMS[norm]}", ylabel="right under attack, %", ylim=(0, 100), xlim=(0, None)
        )
        axes.legend(fontsize="small", title="hollow: not robustness")
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def per_class(
    rows: Sequence[tuple[str, Mapping[str, float]]], classes: Mapping[str, str], path: Path
) -> None:
    """Accuracy of each class under each trial, as a map."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    values = [[100 * row[label] for label in classes] for _, row in rows]
    longest = max(len(name) for name, _ in rows)
    size = (2.5 + 0.09 * longest + 0.55 * len(classes), 2.8 + 0.35 * len(rows))  # inches
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
    names = [name if len(name) < 24 else f"{name[:22]}…" for name in classes.values()]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize="x-small")
    figure.colorbar(image, ax=axes, label="right, %")
    figure.savefig(path, dpi=110)


def worst(entries: Sequence[Mapping[str, Any]], folder: Path, path: Path) -> None:
    """Clean beside forged, with what the model says, three pairs a row."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.image import imread  # noqa: PLC0415

    across = 3
    down = -(-len(entries) // across)
    figure = Figure(figsize=(4.6 * across, 2.7 * down), layout="constrained")
    grid = figure.subplots(down, 2 * across, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for i, entry in enumerate(entries):
        pair = grid[i // across][2 * (i % across) : 2 * (i % across) + 2]
        sides = (entry["clean_picture"], *entry["before"]), (entry["forged_picture"], *entry["after"])
        titles = f"label: {entry['label'][:20]}", entry["attack"][:24]
        for axes, (file, name, sure), title in zip(pair, sides, titles, strict=True):
            axes.imshow(imread(folder / file), cmap="gray", vmin=0, vmax=1)
            axes.set_title(f"{title}\n{name[:20]} {100 * sure:.0f} %", fontsize="small")
    figure.savefig(path, dpi=110)
