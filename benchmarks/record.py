"""The record of a benchmark: cases and their figures, as a table to read and a file to compare.

Files are kept under benchmarks/results, one a benchmark, and committed with what they measured: the history
of the repository is the history of the figures (see compare.py).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"


@dataclass
class Record:
    """Cases in the order in which they were measured."""

    benchmark: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: dict[str, str | int], figures: dict[str, float]) -> None:
        """Note one case and print it; a figure's name says its unit ("p50 ms") or its ratio ("eager / op")."""
        self.rows.append({"case": case, "figures": figures})
        said = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{' '.join(map(str, case.values())):44} {said}", flush=True)

    def write(self, folder: Path) -> Path:
        """Write folder/BENCHMARK.json; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.json"
        whole = {"benchmark": self.benchmark, "machine": machine(), "results": self.rows}
        path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        return path


def add_output(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark's command line its --out."""
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file (%(default)s)")
