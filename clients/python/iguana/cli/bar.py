"""The progress bar of an attack, fed by its watch."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from iguana.response import watched_answer
from iguana.result import AttackAnswer, AttackResult, Progress
from iguana.watch import Watch


def watched(watch: Watch, method: str, samples: int, console: Console) -> AttackAnswer:
    """Draw the moves made of all samples, and by how much the goal is reached, until the answer is there."""
    results: dict[int, AttackResult] = {}
    latest: dict[int, Progress] = {}
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("moves"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with watch, Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(method, total=None, state="waiting")
        for event in watch:
            if isinstance(event, Progress):
                latest[event.sample] = event
            else:
                results[event.sample] = event
            moves = sum(p.steps if p.sample in results else p.step for p in latest.values())
            total = sum(p.steps for p in latest.values()) / len(latest) * samples if latest else None
            bars.update(bar, completed=moves, total=total, state=_state(samples, latest, results))
    return watched_answer(results, watch.summary)


def _state(samples: int, latest: dict[int, Progress], results: dict[int, AttackResult]) -> str:
    fooled = {s for s, p in latest.items() if p.fooled} | {s for s, r in results.items() if r.fooled}
    margins = {s: p.margin for s, p in latest.items()} | {s: r.margin for s, r in results.items()}
    return f"{len(fooled)}/{samples} fooled, least margin {min(margins.values()):+.2f}"
