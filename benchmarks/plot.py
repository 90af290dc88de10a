"""The plots of batching.py: latency against load, throughput, and waits as a distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"step by step": "#1b9e77", "whole requests": "#d95f02", "one after another": "#7570b3"}
MARKS = {"step by step": "o", "whole requests": "s", "one after another": "^"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """What requests saw at one load: offered and good answers a second, latencies in ms."""

    load: float
    offered: float
    p50: float
    p95: float
    good: float


def latency(points: Mapping[str, Sequence[Point]], patience_s: float, path: Path) -> None:
    """Median and 95th percentile, and good answers a second, against the load."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    times, good = figure.subplots(1, 2)
    for name, line in points.items():
        loads, colour, mark = [point.load for point in line], COLOURS[name], MARKS[name]
        times.plot(loads, [point.p95 for point in line], color=colour, marker=mark)
        times.plot(loads, [point.p50 for point in line], color=colour, marker=mark, linestyle=":")
        good.plot(loads, [point.good for point in line], color=colour, marker=mark, label=name)
    longest = max(points.values(), key=len)
    offered = [point.offered for point in longest]
    good.plot([point.load for point in longest], offered, color="grey", linestyle="--", label="offered")
    times.set(yscale="log", ylabel="latency, ms", title="Latency: p95 solid, p50 dotted")
    good.set(ylabel="requests / s", title=f"Answered within {patience_s:g} s")
    good.legend(fontsize="small")
    for axes in (times, good):
        axes.set_xlabel("load, in units of what one after another can bear")
        _finish(axes)
    figure.savefig(path, dpi=100)


def throughput(rates: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Requests a second by schedule and mode: a group of bars for each set of requests."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    names = list(dict.fromkeys(name for group in rates.values() for name in group))
    panels = zip(figure.subplots(1, len(rates), sharey=True), rates.items(), strict=True)
    for axes, (title, group) in panels:
        for name, rate in group.items():
            schedule, mode = name.rsplit(" ", 1)
            bar = axes.barh(
                names.index(name), rate, color=COLOURS[schedule], alpha=1 if mode == "FAST" else 0.5
            )
            axes.bar_label(bar, fmt="%.3g", padding=2)
        axes.margins(x=0.2)
        axes.set(title=title, xlabel="requests / s", yticks=range(len(names)), yticklabels=names)
        _finish(axes)
    axes.invert_yaxis()  # of all: they share it
    figure.savefig(path, dpi=100)


def waiting(waits: Mapping[str, Sequence[float]], path: Path) -> None:
    """The share of small requests that are answered within so many ms."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, ms in waits.items():
        axes.ecdf(ms, label=name, color=COLOURS[name])
    axes.set(
        xscale="log",
        xlabel="latency, ms",
        ylabel="share of the small requests",
        title="Small requests beside a long attack",
    )
    axes.legend(fontsize="small")
    _finish(axes)
    figure.savefig(path, dpi=100)


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
