"""The journal: finished cells, a line each, so that a run that was ended goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from iguana_server.errors import InvalidArgument
from iguana_server.evaluation.cell import Cell


class Journal:
    """A JSON-lines file: first what is evaluated, then the cells in the order in which they ended."""

    def __init__(self, path: Path, subject: Mapping[str, object]) -> None:
        """Read what is there. Raises InvalidArgument where it is of something else, or no journal."""
        self._path = path
        self._cells: dict[tuple[str, int], Cell] = {}
        whole = path.read_bytes() if path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]  # a line without an end was being written
        if len(kept) < len(whole):
            path.write_bytes(kept)
        if not kept:
            self._write(dict(subject))
            return
        first, *rest = kept.decode().splitlines()
        found = json.loads(first)
        for name, value in subject.items():
            if found.get(name) != value:
                want = f"want {name} {found.get(name)} as in {path}, or another folder"
                raise InvalidArgument("--out", f"{want}, got {value}")
        for line in rest:
            cell = Cell.from_json(json.loads(line))
            self._cells[cell.trial, cell.batch] = cell

    def find(self, trial: str, batch: int) -> Cell | None:
        """The finished cell, if it is."""
        return self._cells.get((trial, batch))

    def add(self, cell: Cell) -> None:
        """Note a finished cell; it is on the disk when this returns."""
        self._cells[cell.trial, cell.batch] = cell
        self._write(cell.to_json())

    def _write(self, line: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
