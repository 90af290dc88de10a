"""Trials: an attack with its parameters, at one radius or looking for the smallest change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from iguana import parameter
from iguana.cli.number import parse_number, parse_parameters
from iguana_server.attacks.base import Attack
from iguana_server.attacks.catalog import CATALOG
from iguana_server.errors import InvalidArgument

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Trial:
    """`attack` is as typed; `epsilon` is None where the smallest change is looked for."""

    attack: str
    method: str
    parameters: dict[str, Any]
    norm: Norm
    epsilon: float | None

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return self.attack if self.epsilon is None else f"{self.attack} @ {self.epsilon!r}"

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Client.attack`."""
        return self.parameters | ({} if self.epsilon is None else {"epsilon": self.epsilon})

    @property
    def diagnosable(self) -> bool:
        """Whether the server tries noise and queries where it fails: an attack by gradients in an Linf ball."""
        kind = CATALOG[self.method]
        return issubclass(kind, Attack) and kind.gradient and kind.norm == "linf" and self.epsilon is not None


def to_trials(attacks: Sequence[str], linf: Sequence[float], l2: Sequence[float]) -> list[Trial]:
    """Read attacks such as "pgd:steps=20:restarts=2", each with every radius of its norm.

    Raises InvalidArgument, or the client's errors for what is no attack or no parameter.
    """
    radii: dict[Norm, Sequence[float]] = {"linf": linf, "l2": l2}
    flags = {"linf": "--epsilons", "l2": "--l2-epsilons"}
    for norm, values in radii.items():
        if not all(value > 0 for value in values) or len(set(values)) < len(values):
            raise InvalidArgument(
                flags[norm], f"want radii above 0, each once, got {', '.join(f'{v:g}' for v in values)}"
            )
    trials: list[Trial] = []
    for attack in attacks:
        method, *assignments = attack.split(":")
        fields = parameter.fields_of(method)
        parameters = parse_parameters(method, assignments)
        if "epsilon" in parameters:
            raise InvalidArgument("--attacks", f"want the radii in --epsilons, got {attack}")
        norm = norm_of(method, parameters)
        if "epsilon" not in fields:
            trials.append(Trial(attack, method, parameters, norm, None))
            continue
        if not radii[norm]:
            raise InvalidArgument(flags[norm], f"want radii for {method}, got none")
        trials += [Trial(attack, method, parameters, norm, epsilon) for epsilon in sorted(radii[norm])]
    if not trials or len({trial.key for trial in trials}) < len(trials):
        raise InvalidArgument("--attacks", f"want attacks, each once, got {', '.join(attacks) or 'none'}")
    return trials


def norm_of(method: str, parameters: dict[str, Any]) -> Norm:
    """Return the norm that an attack bounds or makes small; L2 where it does neither."""
    kind = CATALOG[method]
    norm = getattr(kind, "norm", "linf")  # of the scripts, all in Linf balls
    if norm != "none":
        return cast("Norm", norm)
    if method == "rays":
        return "linf"
    for name in ("metric", "distance"):
        if (declared := kind.parameters().get(name)) is not None:
            return cast("Norm", parameters.get(name, declared.choices[int(declared.default)]))
    return "l2"


def parse_radii(text: str, flag: str) -> list[float]:
    """Read "2/255,0.03". Raises InvalidArgument."""
    try:
        return [parse_number(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InvalidArgument(flag, f"want numbers such as 2/255,0.03, got {text!r}") from None
