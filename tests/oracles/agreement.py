"""How far the libraries' answers lie from ours, at worst, for the table at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Figure:
    """Of one attack on one victim: the worst of all cases."""

    difference: float = 0.0  # of a pixel, in rows that are held to be equal
    rows: float = 1.0  # share of such rows
    ratio: float = 0.0  # our norm by theirs; 0: not compared
    values: float = 0.0  # share of pixels' values that differ, where they may

    def __str__(self) -> str:
        """In words."""
        if self.ratio:
            return f"norm x {self.ratio:.2f}"
        if self.values:
            return f"{100 * (1 - self.values):.2f} % of values"
        equal = f"{self.difference:.0e}" if self.difference else "bit for bit"
        return equal if self.rows == 1 else f"{equal} in {100 * self.rows:.0f} % of rows"


@dataclass
class Agreement:
    """Figures by attack and victim."""

    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def note(
        self,
        attack: str,
        victim: str,
        *,
        difference: float = 0.0,
        rows: float = 1.0,
        ratio: float = 0.0,
        values: float = 0.0,
    ) -> None:
        """Take in one case."""
        worst = self.figures.setdefault(attack, {}).setdefault(victim, Figure())
        worst.difference = max(worst.difference, difference)
        worst.rows = min(worst.rows, rows)
        worst.ratio = max(worst.ratio, ratio)
        worst.values = max(worst.values, values)

    def table(self, victims: list[str]) -> list[str]:
        """Markdown: an attack a line, a victim a column."""
        head = [f"| attack | {' | '.join(victims)} |", "|---" * (1 + len(victims)) + "|"]
        return head + [
            f"| `{attack}` | {' | '.join(str(row.get(name, '')) for name in victims)} |"
            for attack, row in sorted(self.figures.items())
        ]


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of a pixel."""
    return float((found - wanted).abs().max())


def differing(found: Tensor, wanted: Tensor) -> float:
    """The share of values that are not equal bit for bit."""
    return float((found != wanted).float().mean())
