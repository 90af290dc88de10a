"""Other model servers as contenders of serving.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NAMES = ("litserve", "pytriton", "torchserve")


def found(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the peers that are installed in `folder`, each with its interpreter; say which are not."""
    for name in NAMES:
        python = (folder or Path("/nonexistent")) / name / "bin" / "python"
        if folder and python.exists():
            yield name, python
        else:
            print(f"  ... {name}: left out, {f'want {python}' if folder else 'no --peers given'}")
