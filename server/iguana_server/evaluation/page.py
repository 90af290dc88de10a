"""The report as one HTML page that holds all it shows: no script, no link to anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd }
td { text-align: right } td:first-child, th { text-align: left } img { max-width: 100% }
.suspect td { background: #fff3d6 } .warning { background: #fff3d6; border-left: 4px solid #e09000; padding: .5rem 1rem }
.pairs { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 20rem }
figure img { width: 48%; image-rendering: pixelated } figcaption { font-size: 13px }
"""


def page(report: Mapping[str, Any], folder: Path, plots: Sequence[Path]) -> str:
    """Return the page; `folder` holds the pictures that the report names."""
    subject = report["subject"]
    title = f"Robustness of {subject['model']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(report['data'])}, {report['samples']} pictures; clean accuracy "
        f"<b>{_percent(report['clean']['accuracy'])}</b>. Robust accuracy is the share of all pictures that are "
        "still seen rightly under the attack (those seen wrongly without one count as lost); success is the share "
        "of the others that the attack fools. What is judged is the picture on the 8-bit grid, as delivered. "
        "Queries and gradients are means over the attacked, those of the diagnosis among them; norms, over the fooled.</p>",
        *(_warning(trial) for trial in report["trials"] if trial["warning"]),
        "<h2>Attacks</h2>",
        _table(_COLUMNS, (_row(trial) for trial in report["trials"])),
        *(f'<p><img alt="{plot.stem}" src="{inline(plot)}"></p>' for plot in plots),
        "<h2>By class</h2>",
        _by_class(report),
        "<h2>Worst pictures</h2>",
        "<p>Fooled by the smallest change; clean on the left, forged on the right.</p>",
        f'<div class="pairs">{"".join(_pair(entry, folder) for entry in report["worst"])}</div>',
        "<h2>What was run</h2>",
        _table(("", ""), ((False, (name, str(value))) for name, value in subject.items())),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


_COLUMNS = (
    "attack",
    "radius",
    "robust accuracy",
    "success",
    "mean Linf",
    "mean L2",
    "queries",
    "gradients",
    "seconds",
    "suspicions",
)


def _row(trial: Mapping[str, Any]) -> tuple[bool, Sequence[str]]:
    epsilon = trial["epsilon"]
    mark = " ⚠ not robustness" if trial["warning"] else ""
    cells = (
        trial["attack"],
        "smallest" if epsilon is None else f"{trial['norm']} {radius(epsilon)}",
        ("see the curve" if epsilon is None else _percent(trial["robust_accuracy"])) + mark,
        _percent(trial["success_rate"]),
        _number(trial["mean_linf"]),
        _number(trial["mean_l2"]),
        _number(trial["mean_queries"]),
        _number(trial["mean_gradients"]),
        _number(trial["seconds"]),
        ", ".join(f"{name} {count}" for name, count in trial["suspicions"].items()),
    )
    return bool(trial["warning"]), cells


def _warning(trial: Mapping[str, Any]) -> str:
    return f'<p class="warning">⚠ <b>{escape(name_of(trial))}</b>: {escape(trial["warning"])}</p>'


def name_of(trial: Mapping[str, Any]) -> str:
    """An attack and its radius in words."""
    return trial["attack"] if trial["epsilon"] is None else f"{trial['attack']} {radius(trial['epsilon'])}"


def bounded(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials at a radius: a search for the smallest change leaves no accuracy without one."""
    return [trial for trial in trials if trial["epsilon"] is not None]


def _by_class(report: Mapping[str, Any]) -> str:
    trials = bounded(report["trials"])
    columns = ("class", "clean", *(name_of(trial) for trial in trials))
    rows = [
        (
            False,
            (
                name,
                _percent(report["clean"]["per_class"][label]),
                *(_percent(trial["per_class"][label]) for trial in trials),
            ),
        )
        for label, name in report["classes"].items()
    ]
    return _table(columns, rows)


def _pair(entry: Mapping[str, Any], folder: Path) -> str:
    epsilon = "" if entry["epsilon"] is None else f" {radius(entry['epsilon'])}"
    made_by = "" if entry["made_by"] == entry["attack"].partition(":")[0] else f" by {entry['made_by']}"
    said = (
        f"<b>{escape(entry['attack'])}{epsilon}</b>{escape(made_by)}: {escape(entry['name'])}, label {escape(entry['label'])}"
        f"<br>{_said(entry['before'])} → {_said(entry['after'])}<br>Linf {entry['linf']:.4f}, L2 {entry['l2']:.3f}"
    )
    images = "".join(
        f'<img alt="{side}" src="{inline(folder / entry[f"{side}_picture"])}"> '
        for side in ("clean", "forged")
    )
    return f"<figure>{images}<figcaption>{said}</figcaption></figure>"


def _said(seen: Sequence[Any]) -> str:
    return f"{escape(str(seen[0]))} {_percent(seen[1])}"


def _table(columns: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr{' class=suspect' if suspect else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for suspect, cells in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def inline(path: Path) -> str:
    """A PNG file as the address of a picture."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def radius(value: float) -> str:
    """8/255 rather than 0.0313725."""
    levels = value * 255
    whole = 0 < value < 1 and abs(levels - round(levels)) < 1e-4
    return f"{round(levels)}/255" if whole else f"{value:.4g}"
