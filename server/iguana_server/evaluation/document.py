"""A report as text, tables and pictures: written as Markdown, and as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import rich.table

from iguana_server.evaluation.page import STYLE, inline

REPORT, TEXT, PAGE = "report.json", "report.md", "index.html"


@dataclass(frozen=True)
class Heading:
    """Of what follows."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, one a column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Part = str | Heading | Table | Path  # a string is a paragraph; a path, a PNG file in the document's folder


def drawn(table: Table, title: str | None = None) -> rich.table.Table:
    """A table for the terminal."""
    made = rich.table.Table(title=title)
    for i, column in enumerate(table.columns):
        made.add_column(column, justify="right" if i else "left")
    for row in table.rows:
        made.add_row(*row)
    return made


@dataclass(frozen=True)
class Document:
    """A title and parts; `figures` are what it tells, as an object."""

    title: str
    parts: Sequence[Part]
    figures: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write report.json, report.md and index.html beside the pictures."""
        text = json.dumps(self.figures, indent=1, ensure_ascii=False) + "\n"
        (folder / REPORT).write_text(text, encoding="utf-8")
        (folder / TEXT).write_text(self.markdown(), encoding="utf-8")
        (folder / PAGE).write_text(self.html(), encoding="utf-8")

    def markdown(self) -> str:
        """As Markdown; pictures by the names of their files."""
        return "\n\n".join([f"# {self.title}", *map(_markdown, self.parts)]) + "\n"

    def html(self) -> str:
        """As a page that holds its pictures."""
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{STYLE}</style>'
        body = f"<h1>{escape(self.title)}</h1>" + "".join(map(_html, self.parts))
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _markdown(part: Part) -> str:
    if isinstance(part, Heading):
        return f"## {part.text}"
    if isinstance(part, Path):
        return f"![{part.stem}]({part.name})"
    if isinstance(part, str):
        return part
    rule = ["---", *["---:"] * (len(part.columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (part.columns, rule, *part.rows))


def _html(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h2>{escape(part.text)}</h2>"
    if isinstance(part, Path):
        return f'<p><img alt="{escape(part.stem)}" src="{inline(part)}"></p>'
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    head = "".join(f"<th>{escape(column)}</th>" for column in part.columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in part.rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
