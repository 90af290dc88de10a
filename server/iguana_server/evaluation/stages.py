"""Progress of what has several stages, one bar a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Stage = Callable[[str, int], Callable[[int], None]]


@contextmanager
def stages(console: Console) -> Iterator[Stage]:
    """Yield what opens a stage of so many steps, and returns what advances it; no terminal, a line a stage."""
    columns = TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bars:

        def stage(name: str, steps: int) -> Callable[[int], None]:
            if not console.is_terminal:  # there, no bar is drawn
                console.print(name)
            bar = bars.add_task(name, total=steps)
            return lambda done: bars.update(bar, advance=done)

        yield stage
