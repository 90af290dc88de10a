"""Compare the figures of two commits: every case that both have, old, new, new / old.

    python -m benchmarks.compare OLD [NEW]

OLD and NEW are folders of JSON files, or revisions of this repository; without NEW, the files that lie here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

Figures = dict[tuple[str, str, str], float]  # benchmark, case, figure


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default=str(RESULTS))
    arguments = parser.parse_args()
    old, new = read(arguments.old), read(arguments.new)
    common = [key for key in new if key in old]
    print(f"{'benchmark, case, figure':86}{'old':>11}{'new':>11}{'new / old':>11}")
    for key in common:
        change = f"{new[key] / old[key]:11.3f}" if old[key] else f"{'':>11}"
        print(f"{', '.join(key):86}{old[key]:11.4g}{new[key]:11.4g}{change}")
    print(
        f"{len(common)} figures in both, {len(old) - len(common)} in old alone, {len(new) - len(common)} in new"
    )


def read(where: str) -> Figures:
    """Return the figures of a folder, or of benchmarks/results at a revision."""
    folder = Path(where)
    texts = [path.read_text() for path in sorted(folder.glob("*.json"))] if folder.is_dir() else at(where)
    return {key: value for text in texts for key, value in figures(json.loads(text)).items()}


def at(revision: str) -> list[str]:
    """Return the committed files of a revision."""
    names = git("ls-tree", "--name-only", f"{revision}:benchmarks/results").split()
    return [git("show", f"{revision}:benchmarks/results/{name}") for name in names if name.endswith(".json")]


def git(*arguments: str) -> str:
    """Return what git says; raises CalledProcessError where it refuses."""
    root = RESULTS.parent.parent
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout  # noqa: S607


def figures(record: dict[str, Any]) -> Figures:
    """Flatten one record."""
    return {
        (record["benchmark"], " ".join(map(str, row["case"].values())), name): value
        for row in record["results"]
        for name, value in row["figures"].items()
    }


if __name__ == "__main__":
    main()
