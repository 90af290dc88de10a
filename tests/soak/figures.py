"""What was measured, for the table at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Lines of the table, and word of how far a long test is."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    _told: float = field(default_factory=time.monotonic)

    def note(self, what: str, got: object, want: str = "") -> None:
        """Add a line."""
        self.lines.append((what, str(got), want))
        print(f"{what}: {got}", flush=True)

    def tell(self, what: str, done: int, of: int) -> None:
        """Say how far it is, once in five seconds."""
        if time.monotonic() - self._told > 5:
            self._told = time.monotonic()
            print(f"  {what}: {done} of {of}", flush=True)

    def table(self) -> list[str]:
        """The lines, in columns."""
        wide = [max(len(line[k]) for line in self.lines) for k in (0, 1)]
        return [f"{what:<{wide[0]}}  {got:<{wide[1]}}  {want}".rstrip() for what, got, want in self.lines]


def ms(seconds: Sequence[float]) -> str:
    """Median, 95th, 99th percentile and largest of some times."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return " / ".join(f"{1000 * s:.1f}" for s in (cuts[49], cuts[94], cuts[98], max(seconds))) + " ms"
