"""One evaluation from end to end: data, trials, cells, report, plots, page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iguana import Client
from iguana.listing import Model
from iguana_server.errors import NotFound
from iguana_server.evaluation import curves
from iguana_server.evaluation import data as data_sets
from iguana_server.evaluation.journal import Journal
from iguana_server.evaluation.page import bounded, name_of, page, radius
from iguana_server.evaluation.report import report
from iguana_server.evaluation.runner import CLEAN, Runner
from iguana_server.evaluation.trial import Norm, to_trials
from iguana_server.rpc.goal import Classes

MESSAGE_BYTES = 512 << 20  # the most that a batch may take, either way; the server has limits of its own
JOURNAL, REPORT, PAGE, PICTURES = "cells.jsonl", "robustness.json", "index.html", "pictures"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is asked: data, attacks such as "pgd:steps=20", radii of both norms, where the results go.

    A folder that holds the journal of the same evaluation is gone on with, also with more attacks or radii.
    """

    data: Path
    attacks: Sequence[str]
    linf: Sequence[float]
    l2: Sequence[float]
    out: Path
    samples: int | None = None
    batch: int = 32
    seed: int = 0
    diagnose: bool = True

    def run(self, client: Client, model_name: str, console: Console) -> dict[str, Any]:
        """Evaluate a model of the client's server; returns the report, which is written with its plots and page.

        Raises InvalidArgument, NotFound, FailedPrecondition where it cannot be done, and what the client raises.
        """
        curves.require()
        trials = to_trials(self.attacks, self.linf, self.l2)
        served = client.models()
        model = _find(served, model_name)
        data = data_sets.load(self.data, Classes(model.name, model.classes), self.samples)
        pictures = self.out / PICTURES
        pictures.mkdir(parents=True, exist_ok=True)
        batch = min(self.batch, served.limits.max_images)
        subject = {
            "model": model.name,
            "model_sha256": model.sha256,
            "data_sha256": data.digest,
            "samples": len(data),
            "batch": batch,
            "seed": self.seed,
            "diagnose": self.diagnose,
        }
        journal = Journal(self.out / JOURNAL, subject)
        runner = Runner(client, model.name, data, pictures, batch, self.seed, self.diagnose)
        with _bar(console, len(data) * (1 + len(trials))) as advance:
            cells = runner.run(trials, journal, advance)
        radii: dict[Norm, Sequence[float]] = {"linf": self.linf, "l2": self.l2}
        made = report(subject, data, model.classes, trials, cells, radii)
        self._write(made, pictures)
        console.print(table(made))
        for trial in made["trials"]:
            if trial["warning"]:
                console.print(f"WARNING {name_of(trial)}: {trial['warning']}", style="yellow")
        return made

    def _write(self, made: Mapping[str, Any], pictures: Path) -> None:
        (self.out / REPORT).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        plots = [self.out / "accuracy.png", self.out / "classes.png"]
        curves.accuracy(made["curves"], plots[0])
        rows = [(name_of(trial), trial["per_class"]) for trial in bounded(made["trials"])]
        curves.per_class([(CLEAN, made["clean"]["per_class"]), *rows], made["classes"], plots[1])
        if made["worst"]:
            curves.worst(made["worst"], pictures, self.out / "worst.png")
        (self.out / PAGE).write_text(page(made, pictures, plots), encoding="utf-8")


def _find(models: Sequence[Model], name: str) -> Model:
    """The model of this name; without one, the only model."""
    for model in models:
        if model.name == name or (not name and len(models) == 1):
            return model
    raise NotFound("--model", name, [model.name for model in models])


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Any]:
    """Draw how many samples are done, of all trials together, and which trial it is."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar, latest = bars.add_task(CLEAN, total=total), ""

        def advance(trial: str, samples: int) -> None:
            nonlocal latest
            if trial != latest and not console.is_terminal:  # there, no bar is drawn
                console.print(trial)
            latest = trial
            bars.update(bar, advance=samples, description=trial)

        yield advance


def table(made: Mapping[str, Any]) -> Table:
    """The report's figures."""
    drawn = Table(title=f"{made['subject']['model']}: clean {100 * made['clean']['accuracy']:.1f} %")
    drawn.add_column("attack")
    for column in ("radius", "robust %", "success %", "Linf", "L2", "queries", "gradients", "s"):
        drawn.add_column(column, justify="right")
    drawn.add_column("suspicions")
    for trial in made["trials"]:
        epsilon = trial["epsilon"]
        means = [trial[f"mean_{name}"] for name in ("linf", "l2", "queries", "gradients")]
        drawn.add_row(
            trial["attack"],
            "smallest" if epsilon is None else f"{trial['norm']} {radius(epsilon)}",
            ("" if epsilon is None else f"{100 * trial['robust_accuracy']:.1f}")
            + (" (?)" if trial["warning"] else ""),
            f"{100 * trial['success_rate']:.1f}",
            *("" if mean is None else f"{mean:.4g}" for mean in means),
            f"{trial['seconds']:.1f}",
            ", ".join(f"{name} {count}" for name, count in trial["suspicions"].items()),
            style="yellow" if trial["warning"] else None,
        )
    return drawn
