"""The runner: every trial on every batch, through the client, as far as the journal does not know the answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iguana import AttackResult, Client, ImageLike, Progress
from iguana_server.evaluation.cell import Cell, Sample, worst
from iguana_server.evaluation.data import Data
from iguana_server.evaluation.journal import Journal
from iguana_server.evaluation.trial import Trial
from iguana_server.rpc.bounds import MAX_EVERY_STEPS

CLEAN = "clean"  # the trial without an attack
WORST = 4  # pictures kept of a cell, and shown of an attack
CALL_S = 3600.0  # of one batch, with its wait in the queue


@dataclass(frozen=True)
class Runner:
    """A model of a server, its data, and where pictures go."""

    client: Client
    model: str
    data: Data
    folder: Path
    batch: int
    seed: int
    diagnose: bool

    def run(
        self, trials: Sequence[Trial], journal: Journal, advance: Callable[[str, int], None]
    ) -> dict[str, list[Cell]]:
        """Return the cells of every trial and of CLEAN. `advance` is told the trial and how many samples are new."""
        batches = range(0, len(self.data), self.batch)
        plan: list[Trial | None] = [None, *trials]
        done: dict[str, list[Cell]] = {}
        for trial in plan:
            key = CLEAN if trial is None else trial.key
            done[key] = []
            for batch, start in enumerate(batches):
                cell = journal.find(key, batch)
                if cell is None:
                    cell = (
                        self._classify(batch, start)
                        if trial is None
                        else self._attack(trial, batch, start, advance)
                    )
                    journal.add(cell)
                    new = len(cell.samples) if trial is None else 0
                else:
                    new = len(cell.samples)
                if new:
                    advance(key, new)
                done[key].append(cell)
        return done

    def _classify(self, batch: int, start: int) -> Cell:
        began = time.perf_counter()
        images, labels = self._batch(start)
        seen = self.client.classify(images, model=self.model, top_k=1, timeout_s=CALL_S)
        samples = tuple(
            Sample.clean(start + i, label, one)
            for i, (label, one) in enumerate(zip(labels, seen, strict=True))
        )
        return Cell(CLEAN, batch, time.perf_counter() - began, samples)

    def _attack(self, trial: Trial, batch: int, start: int, advance: Callable[[str, int], None]) -> Cell:
        began = time.perf_counter()
        images, labels = self._batch(start)
        results: dict[int, AttackResult] = {}
        with self.client.watch(
            images,
            trial.method,
            every_steps=MAX_EVERY_STEPS,
            timeout_s=CALL_S,
            model=self.model,
            label=labels,
            seed=self.seed + start,  # row i of a request draws from (seed, i)
            return_clean=True,
            diagnose=self.diagnose and trial.diagnosable,
            top_k=1,
            **trial.options,
        ) as watch:
            for event in watch:
                if not isinstance(event, Progress):
                    results[event.sample] = event
                    advance(trial.key, 1)
        samples = tuple(Sample.attacked(start + i, labels[i], results[i]) for i in range(len(labels)))
        pictures: dict[int, str] = {}
        for sample in worst(samples, trial.norm, WORST):
            result = results[sample.index - start]
            assert result.clean is not None  # noqa: S101 - it was asked for
            (self.folder / clean_name(sample.index)).write_bytes(result.clean.png)
            pictures[sample.index] = name = f"{_slug(trial.key)}-{sample.index}.png"
            (self.folder / name).write_bytes(result.png)
        return Cell(trial.key, batch, time.perf_counter() - began, samples, pictures)

    def _batch(self, start: int) -> tuple[Sequence[ImageLike], list[int]]:
        chosen = slice(start, start + self.batch)
        return self.data.images[chosen], list(self.data.labels[chosen])


def clean_name(index: int) -> str:
    """The file of a clean picture, as the model took it in."""
    return f"clean-{index}.png"


def _slug(key: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", key.lower())
