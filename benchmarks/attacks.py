"""Attacks by Iguana, by the attack libraries as their users run them, and the limit.

    python -m benchmarks.attacks [--only efficientnet-lite0/pgd ...] [--rounds 2] [--quick] [--device cuda]

Every contender lives in a process of its own, because the allocator's settings are a process's: the libraries'
are the defaults, Iguana's are those its server sets (iguana_server/process.py). One works at a time, in turn,
round after round; the others sleep. All have the same images, labels (what the model sees in the clean images),
budget, step size (a tenth of it), number of steps and loss; a plain forward of the plain model judges what they
deliver, and their success must agree within one sample in 256, but for those whose formula is another (OTHERS).

The limit is the bare loop of peers/limit.py: a forward and a backward to the pixels on frozen, folded,
channels_last weights, and a move in place. It runs with the default settings (`limit`) and with Iguana's
(`limit, set`); `... set` after a library's name means the same of it. Iguana's modes: every step is taken
(`Iguana`), or a sample leaves at its first success (`Iguana, early`); STRICT passes of a fixed size, the
server's default, or FAST ones. A file of results is written for each model of which all was run.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.machine import busy_s, own_s
from benchmarks.peers import victim as victims
from benchmarks.peers.proxy import Verdict, Worker, judge
from benchmarks.peers.task import Task
from benchmarks.record import Record, add_output
from benchmarks.rounds import alternate, ratio

EPSILON, ROBUST_EPSILON = 8 / 255, 1 / 255
L2_EPSILON = {"efficientnet-lite0": 3.0, "fashion-mnist-cnn": 1.5}
FULL = 40  # steps of PGD-40
AGREE = 1 / 256  # of the samples
AGREE_DRAWN = 0.01  # where both sides draw their own random numbers


@dataclass(frozen=True)
class Side:
    """One contender, and how it runs."""

    title: str
    contender: str
    settings: str = "default"
    early: bool = False
    strict: bool = True

    @property
    def tuned(self) -> Side:
        """The same with Iguana's process settings."""
        return replace(self, title=f"{self.title}, set", settings="iguana")


PEERS = [
    Side(name.replace("_", "-"), name) for name in ("torchattacks", "foolbox", "art", "cleverhans", "adv_lib")
]
LIMIT = Side("limit", "limit")
LIMIT_EARLY = Side("limit, early", "limit", early=True)
IGUANA = Side("Iguana", "iguana", "iguana")
FAST = replace(IGUANA, title="Iguana, FAST", strict=False)
EARLY = replace(IGUANA, title="Iguana, early", early=True)
EARLY_FAST = replace(EARLY, title="Iguana, early, FAST", strict=False)
GRPC = Side("Iguana, gRPC", "iguana_grpc")
GRPC_EARLY = replace(GRPC, title="Iguana, gRPC, early", early=True)
# Their formulas differ: foolbox adds up signs, these clip to the box before the ball, and these two have Auto-PGDs
# of their own (a random start; another rule for the step).
OTHERS = {
    ("foolbox", "mifgsm"),
    ("art", "pgdl2"),
    ("cleverhans", "pgdl2"),
    ("art", "apgd"),
    ("adv_lib", "apgd"),
}
LOOKS_BEHIND = ("adv_lib", "pgd")  # its last move is not looked at: it agrees when all is settled before


@dataclass(frozen=True)
class Duel:
    """The seconds of every side by its title, round by round, and what became of the samples."""

    times: dict[str, list[float]]
    verdicts: dict[str, Verdict]
    others: float  # share of the cores that other processes had: above 0.1 the figures say little


class Arena:
    """A victim, and a worker for every contender that was needed so far."""

    def __init__(
        self, name: str, device: str, folder: Path, stack: ExitStack, *, rounds: int, quick: bool
    ) -> None:
        """Load the victim; workers end with the stack."""
        self.victim = victims.load(name, torch.device(device))
        self.record = Record(f"attacks-{name}")
        self.faults: list[str] = []
        self.rounds, self.quick = rounds, quick
        self._device, self._folder, self._stack = device, folder, stack
        self._workers: dict[tuple[str, str], Worker] = {}
        self._best: Side | None = None
        self.best_step_s = math.nan  # of the best library

    def worker(self, side: Side) -> Worker:
        """Return the side's worker, started if need be."""
        key = side.contender, side.settings
        if key not in self._workers:
            worker = Worker(side.contender, self.victim.name, self._device, side.settings)
            self._workers[key] = self._stack.enter_context(worker)
        return self._workers[key]

    @property
    def best(self) -> Side:
        """The fastest library, by a duel of this run, if need be one of three steps."""
        if self._best is None:
            self.duel("pgd", 3, PEERS, 1)
        assert self._best is not None
        return self._best

    def duel(
        self,
        attack: str,
        steps: int,
        sides: Iterable[Side],
        rounds: int,
        *,
        epsilon: float | None = None,
        warm_up: int = 0,
    ) -> Duel:
        """Let all sides that have the attack do it in turn; judge, and note."""
        radius = epsilon or (L2_EPSILON[self.victim.name] if attack == "pgdl2" else EPSILON)
        chosen = [side for side in sides if attack in self.worker(side).attacks]
        tasks = {
            side.title: Task(attack, radius, steps, early=side.early, strict=side.strict) for side in chosen
        }
        runs = {side.title: partial(self.worker(side).run, tasks[side.title]) for side in chosen}
        began, others = time.perf_counter(), busy_s() - own_s()
        times = alternate(runs, rounds, warm_up)
        others = (busy_s() - own_s() - others) / (
            len(os.sched_getaffinity(0)) * (time.perf_counter() - began)
        )
        verdicts: dict[str, Verdict] = {}
        for side in chosen:
            task = tasks[side.title]
            verdicts[side.title] = judge(self.victim, self.worker(side).deliver(task, self._folder), task)
        duel = Duel(times, verdicts, others)
        self._note(attack, steps, radius, chosen, duel)
        if attack == "pgd" and set(PEERS) <= set(chosen):
            self._best = min(PEERS, key=lambda side: statistics.median(times[side.title]))
            self.best_step_s = statistics.median(times[self._best.title]) / steps
        return duel

    def headline(self, name: str, ratios: tuple[float, float, float], wanted: float) -> None:
        """Note one of the figures that count: median, least, greatest, and what is wanted."""
        median, low, high = ratios
        case: dict[str, str | int] = {"model": self.victim.name, "headline": name}
        self.record.add(case, {"median": median, "low": low, "high": high, "wanted": wanted})

    def agree(self, what: str, verdicts: Mapping[str, Verdict]) -> None:
        """Note a fault where the success of these contenders differs by more than one sample in 256, or one point."""
        fooled = {title: verdict.fooled for title, verdict in verdicts.items()}
        share = AGREE_DRAWN if what.startswith("autoattack") else AGREE
        if fooled and max(fooled.values()) - min(fooled.values()) > share * len(self.victim.images):
            self.faults.append(f"{self.victim.name}, {what}: want equal success, got {fooled}")

    def _note(self, attack: str, steps: int, epsilon: float, sides: Sequence[Side], duel: Duel) -> None:
        limits = [title for title in ("limit", "limit, set") if title in duel.times]
        budget = f"{epsilon:g}" if attack == "pgdl2" else f"{round(epsilon * 255)}/255"
        for side in sides:
            seconds, verdict = duel.times[side.title], duel.verdicts[side.title]
            figures = {"s": statistics.median(seconds), "low s": min(seconds), "high s": max(seconds)}
            figures["ms a step"] = 1000 * figures["s"] / steps
            for title in limits:
                median, low, high = ratio(seconds, duel.times[title])
                figures |= {f"/ {title}": median, f"/ {title} low": low, f"/ {title} high": high}
            figures |= {
                "success": verdict.fooled / verdict.samples,
                "norm": verdict.norm,
                "others": duel.others,
                "rounds": len(seconds),
            }
            self.record.add(
                {
                    "model": self.victim.name,
                    "attack": f"{attack}-{steps}",
                    "epsilon": budget,
                    "who": side.title,
                },
                figures,
            )
        others = OTHERS if steps >= FULL else OTHERS | {LOOKS_BEHIND}
        alike = [side.title for side in sides if (side.contender, attack) not in others]
        self.agree(f"{attack}-{steps}, {budget}", {title: duel.verdicts[title] for title in alike})


def every_step(arena: Arena) -> None:
    """PGD with all its steps, by all; then what the best library has of Iguana's process settings."""
    quick, name = arena.quick, arena.victim.name
    steps = 2 if quick else 3 if name == "efficientnet-lite0" else FULL
    sides = [LIMIT, LIMIT.tuned, IGUANA, FAST, GRPC, *PEERS]
    duel = arena.duel("pgd", steps, sides, arena.rounds)
    best = arena.best
    times = duel.times
    for ours in (IGUANA, FAST):
        arena.headline(
            f"{best.title} / {ours.title}, every step", ratio(times[best.title], times[ours.title]), 2.2
        )
    settings = arena.duel("pgd", min(steps, 20), [LIMIT.tuned, best, best.tuned, IGUANA, FAST], arena.rounds)
    for ours in (IGUANA, FAST):
        what = ratio(settings.times[best.tuned.title], settings.times[ours.title])
        arena.headline(f"{best.tuned.title} / {ours.title}, every step", what, 1.0)


def limit(arena: Arena) -> None:
    """How near Iguana comes to the limit with the same settings, and gRPC to it."""
    steps = 2 if arena.quick else 8 if arena.victim.name == "efficientnet-lite0" else FULL
    duel = arena.duel("pgd", steps, [LIMIT.tuned, IGUANA, FAST, GRPC], arena.rounds + 1)
    for ours in (IGUANA, FAST):
        arena.headline(
            f"limit, set / {ours.title}, every step",
            ratio(duel.times["limit, set"], duel.times[ours.title]),
            0.95,
        )
    arena.headline(
        "in-process / gRPC, every step", ratio(duel.times[IGUANA.title], duel.times[GRPC.title]), 0.9
    )


def early(arena: Arena) -> None:
    """PGD-40 where fooled samples leave, against the best library's 40 steps, which know no leaving."""
    steps, rounds = 2 if arena.quick else FULL, arena.rounds + 1
    sides = [LIMIT_EARLY, LIMIT_EARLY.tuned, EARLY, EARLY_FAST, GRPC_EARLY]
    duel = arena.duel("pgd", steps, sides, rounds, warm_up=1)
    theirs = arena.duel("pgd", steps, [arena.best], 1)
    (seconds,) = theirs.times[arena.best.title]
    wanted = 20.0 if arena.victim.name == "efficientnet-lite0" else 6.0
    for ours in (EARLY, EARLY_FAST, GRPC_EARLY):
        ratios = ratio([seconds] * rounds, duel.times[ours.title])
        arena.headline(f"{arena.best.title}, one run / {ours.title}", ratios, wanted)
        ratios = ratio([arena.best_step_s * steps] * rounds, duel.times[ours.title])
        arena.headline(f"{arena.best.title}, {steps} x its step / {ours.title}", ratios, wanted)
    arena.headline(
        "in-process / gRPC, early", ratio(duel.times[EARLY.title], duel.times[GRPC_EARLY.title]), 0.9
    )
    arena.agree(f"pgd-{steps}, early", {**theirs.verdicts, **duel.verdicts})


def held(arena: Arena) -> None:
    """PGD-40 in a ball so small that most samples never fall: where leaving early helps least.

    It stands for a robust model, of which no weights are at hand.
    """
    steps = 2 if arena.quick else FULL
    sides = [LIMIT.tuned, IGUANA, EARLY, FAST, EARLY_FAST, arena.best]
    duel = arena.duel("pgd", steps, sides, arena.rounds, epsilon=ROBUST_EPSILON)
    for ours in (EARLY, EARLY_FAST):
        ratios = ratio(duel.times[arena.best.title], duel.times[ours.title])
        arena.headline(f"{arena.best.title} / {ours.title}, most held", ratios, 1.0)


def another(attack: str, arena: Arena) -> None:
    """Another attack with all its steps, by all who have it."""
    big = arena.victim.name == "efficientnet-lite0"
    steps = 1 if attack == "fgsm" else 2 if arena.quick or big else 10
    rounds = arena.rounds + 1 if attack == "fgsm" else max(1, arena.rounds - 1)
    duel = arena.duel(attack, steps, [LIMIT, LIMIT.tuned, IGUANA, FAST, GRPC, *PEERS], rounds)
    peers = [side.title for side in PEERS if side.title in duel.times]
    best = min(peers, key=lambda title: statistics.median(duel.times[title]))
    arena.headline(f"{best} / {FAST.title}, {attack}", ratio(duel.times[best], duel.times[FAST.title]), 1.0)


def autoattack(arena: Arena) -> None:
    """AutoAttack with the budget of torchattacks' own: ten steps an attack, nine targets, 5000 queries."""
    library = PEERS[0]
    for epsilon, name in ((EPSILON, "8/255"), (0.1, "0.1")):
        duel = arena.duel("autoattack", 10, [GRPC_EARLY, library], 1, epsilon=epsilon)
        what = ratio(duel.times[library.title], duel.times[GRPC_EARLY.title])
        arena.headline(f"{library.title} / {GRPC_EARLY.title}, autoattack, {name}", what, 4.0)


PARTS: dict[str, Callable[[Arena], None]] = {
    "pgd": every_step,
    "limit": limit,
    "early": early,
    "held": held,
    "autoattack": autoattack,
    **{attack: partial(another, attack) for attack in ("fgsm", "pgdl2", "mifgsm", "apgd")},
}


def parts(model: str) -> list[str]:
    """Return the names of a model's parts."""
    return [f"{model}/{part}" for part in PARTS if part != "held" or model == "fashion-mnist-cnn"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [name for model in victims.NAMES for name in parts(model)]
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"parts, or models: {', '.join(every)}")
    parser.add_argument(
        "--rounds", type=int, default=2, help="rounds of PGD; fewer of the rest (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="two steps each: to see that it runs")
    parser.add_argument("--device", default="cpu", help="of the models: cpu or cuda (%(default)s)")
    add_output(parser)
    arguments = parser.parse_args()
    wanted = [name for name in every if any(name.startswith(word) for word in arguments.only or [""])]
    if not wanted:
        parser.error(f"--only: want some of {', '.join(every)}, got {arguments.only}")
    faults: list[str] = []
    for model in victims.NAMES:
        faults += run(model, [name for name in wanted if name.startswith(model)], arguments)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


def run(model: str, names: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """Run a model's parts, write its file if that was all; returns what does not agree."""
    if not names:
        return []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        arena = Arena(model, arguments.device, folder, stack, rounds=arguments.rounds, quick=arguments.quick)
        for name in names:
            PARTS[name.partition("/")[2]](arena)
        table(arena.record.rows)
        if list(names) == parts(model) and not arguments.quick:
            arena.record.write(arguments.out)
    return arena.faults


def table(rows: Sequence[Mapping[str, Mapping[str, object]]]) -> None:
    """Print the figures that count once more."""
    print()
    for row in rows:
        case, figures = row["case"], row["figures"]
        if "headline" in case:
            median, low, high, wanted = (
                float(str(figures[key])) for key in ("median", "low", "high", "wanted")
            )
            print(
                f"{case['model']!s:20}{case['headline']!s:52}{median:8.2f}  ({low:.2f}-{high:.2f}, wanted {wanted:g})"
            )
    print(flush=True)


if __name__ == "__main__":
    main()
