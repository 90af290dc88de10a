"""How often attacks succeed, and by how small a change, beside the libraries at an equal budget.

    python -m benchmarks.strength [--only fashion-mnist-cnn/square ...] [--quick] [--resume]

Nothing is timed. The pictures are the first 200 of Fashion-MNIST's test set that the model sees rightly, and those
of the 20 labelled ImageNet photographs in foolbox's package that it does. Both sides get the same pictures, labels,
radius, steps, step size and looks; Iguana runs as its callers run it (a real server, the Python client, the best
iterate, float pixels), the libraries as theirs do. A plain forward of the plain network judges what is delivered:
fooled is a picture in which another class leads, or lacks less than TIE logits, as attacks that stop on the
boundary do by rounding alone. Attacks that draw random numbers run with several seeds.

Iguana is worse where it fools fewer pictures by more than 1 point or, without a ball, changes those that both
fool by more than 2 % more in the mean. Such rows are flagged, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import victim as victims
from benchmarks.peers.iguana_grpc import serving
from benchmarks.peers.victim import Victim
from benchmarks.record import Record, add_output
from iguana import Client
from iguana.v1 import image_pb2
from iguana_server.app import limits
from iguana_server.config import Config
from iguana_server.models import catalog, packaged
from iguana_server.rpc.image import to_pixels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import foolbox
    import torchattacks

PICTURES, QUICK = 200, 8  # of Fashion-MNIST; of any model with --quick
TIE = 1e-4  # logits
POINTS, SHARE = 0.01, 0.02  # by which Iguana may do worse
CALL_S = 3600.0

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What both sides may spend on a model."""

    linf: tuple[float, ...]
    l2: tuple[float, ...]
    steps: int  # of attacks in a ball
    targeted_steps: int  # of each of nine tries
    queries: int
    search: int  # moves of an attack for the smallest change
    seeds: int  # of attacks that draw random numbers
    searches: tuple[int, int]  # of Carlini and Wagner's, and the moves of each


BUDGETS = {
    "fashion-mnist-cnn": Budget(
        linf=(0.01, 0.03),
        l2=(0.25, 0.75),
        steps=10,
        targeted_steps=5,
        queries=300,
        search=100,
        seeds=3,
        searches=(5, 60),
    ),
    "efficientnet-lite0": Budget(
        linf=(0.5 / 255,),
        l2=(0.3,),
        steps=5,
        targeted_steps=2,
        queries=50,
        search=20,
        seeds=2,
        searches=(2, 20),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack: its parameters at Iguana, and the library's run of it with a seed."""

    attack: str
    library: str
    theirs: Callable[[Victim, int], Tensor]
    ours: dict[str, Any] = field(default_factory=dict)
    epsilon: float | None = None  # None: the smallest change is looked for
    norm: Norm = "linf"
    random: bool = False

    def names(self, model: str, pictures: int) -> dict[str, str | int]:
        """What tells it from the others of all records."""
        return {
            "model": model,
            "attack": self.attack,
            "library": self.library,
            "epsilon": "smallest" if self.epsilon is None else f"{self.epsilon:.4g}",
            "norm": self.norm,
            "pictures": pictures,
        }


def cases(budget: Budget, channels: int, classes: int) -> list[Case]:
    """Every attack that a library has too, at a model's budget."""
    made = [case for epsilon in budget.linf for case in _in_linf(budget, epsilon)]
    if channels != 3:  # torchattacks' takes colours only
        made = [case for case in made if case.attack != "tifgsm"]
    for epsilon in budget.l2:
        own = {"epsilon": epsilon, "alpha": epsilon / 10, "steps": budget.steps}
        run = _torchattacks("PGDL2", eps=epsilon, alpha=epsilon / 10, steps=budget.steps, random_start=False)
        made.append(
            Case(attack="pgdl2", library="torchattacks", theirs=run, ours=own, epsilon=epsilon, norm="l2")
        )
    return made + _smallest(budget, classes)


def _in_linf(budget: Budget, epsilon: float) -> list[Case]:
    steps, alpha = budget.steps, epsilon / 10
    own: dict[str, Any] = {"epsilon": epsilon, "alpha": alpha, "steps": steps}
    their: dict[str, Any] = {"eps": epsilon, "alpha": alpha, "steps": steps}
    tuned = {"neighbours": 5, "beta": 1.5}, {"N": 5, "beta": 1.5}
    few = budget.targeted_steps

    def case(
        attack: str, library: str, ours: dict[str, Any], theirs: dict[str, Any], *, random: bool = False
    ) -> Case:
        return Case(
            attack=attack,
            library="torchattacks",
            theirs=_torchattacks(library, **theirs),
            ours=ours,
            epsilon=epsilon,
            random=random,
        )

    momentum = {**own, "decay": 1.0}, {**their, "decay": 1.0}
    return [
        case("fgsm", "FGSM", {"epsilon": epsilon}, {"eps": epsilon}),
        case("pgd", "PGD", own, {**their, "random_start": False}),
        case("mifgsm", "MIFGSM", *momentum),
        case("nifgsm", "NIFGSM", *momentum),
        case(
            "difgsm",
            "DIFGSM",
            {**momentum[0], "probability": 0.5, "scale": 0.9},
            {**momentum[1], "diversity_prob": 0.5, "resize_rate": 0.9},
            random=True,
        ),
        case("tifgsm", "TIFGSM", momentum[0], {**momentum[1], "diversity_prob": 0.0}),
        case("sinifgsm", "SINIFGSM", {**momentum[0], "copies": 5}, {**momentum[1], "m": 5}),
        case("vmifgsm", "VMIFGSM", momentum[0] | tuned[0], momentum[1] | tuned[1], random=True),
        case("vnifgsm", "VNIFGSM", momentum[0] | tuned[0], momentum[1] | tuned[1], random=True),
        case(
            "apgd",
            "APGD",
            {"epsilon": epsilon, "steps": steps},
            {"eps": epsilon, "steps": steps, "loss": "ce"},
            random=True,
        ),
        case(
            "apgdt",
            "APGDT",
            {"epsilon": epsilon, "steps": few},
            {"eps": epsilon, "steps": few},
            random=True,
        ),
        # Its budget does not count the looks at the clean picture and at the first stripes.
        case(
            "square",
            "Square",
            {"epsilon": epsilon, "queries": budget.queries + 2},
            {"eps": epsilon, "n_queries": budget.queries},
            random=True,
        ),
    ]


def _smallest(budget: Budget, classes: int) -> list[Case]:
    steps, (binary, moves) = budget.search, budget.searches
    rivals = min(9, classes - 1)
    attacks = foolbox.attacks
    own: dict[str, tuple[Any, dict[str, Any], Norm]] = {
        "ddn": (attacks.DDNAttack(steps=steps, init_epsilon=1.0, gamma=0.05), {"steps": steps}, "l2"),
        "cw": (
            attacks.L2CarliniWagnerAttack(
                binary_search_steps=binary, steps=moves, stepsize=0.02, initial_const=0.1
            ),
            {"binary_steps": binary, "steps": moves, "rate": 0.02, "initial_const": 0.1},
            "l2",
        ),
        "fmn": (attacks.L2FMNAttack(steps=steps), {"metric": "l2", "steps": steps}, "l2"),
        "fmn linf": (attacks.LInfFMNAttack(steps=steps), {"metric": "linf", "steps": steps}, "linf"),
        "deepfool": (
            attacks.L2DeepFoolAttack(steps=50, candidates=rivals + 1, overshoot=0.02, loss="logits"),
            {"steps": 50, "rivals": rivals, "overshoot": 0.02},
            "l2",
        ),
    }
    found = [
        Case(attack=name, library="foolbox", theirs=_foolbox(attack), ours=ours, norm=norm)
        for name, (attack, ours, norm) in own.items()
    ]
    few = budget.targeted_steps
    for name, metric in (("Linf", "linf"), ("L2", "l2")):
        ours = {"metric": metric, "steps": few, "targets": rivals}
        theirs = _fab(name, few, rivals)
        norm: Norm = "linf" if metric == "linf" else "l2"
        found.append(
            Case(attack=f"fab {metric}", library="torchattacks", theirs=theirs, ours=ours, norm=norm)
        )
    return found


def _torchattacks(name: str, **options: Any) -> Callable[[Victim, int], Tensor]:
    def run(victim: Victim, seed: int) -> Tensor:
        torch.manual_seed(seed)
        own = {"seed": seed} if name in {"APGD", "APGDT", "Square"} else {}
        own |= {"n_classes": victim.classes} if name == "APGDT" else {}
        attack = getattr(torchattacks, name)(victim.net, **options, **own)
        return torch.as_tensor(attack(victim.images, victim.labels))

    return run


def _fab(norm: str, steps: int, targets: int) -> Callable[[Victim, int], Tensor]:
    """FAB-T at each of the likeliest other classes; the nearest picture that fools."""

    def run(victim: Victim, _: int) -> Tensor:
        attack = torchattacks.FAB(
            victim.net, norm=norm, steps=steps, multi_targeted=True, n_classes=victim.classes
        )
        best, least = victim.images.clone(), torch.full((len(victim.images),), torch.inf)
        for rank in range(targets):
            attack.target_class = rank + 2
            found = attack.attack_single_run_targeted(victim.images, victim.labels)
            far = distance(found, victim.images, "linf" if norm == "Linf" else "l2")
            near = fooled(victim, found) & (far < least)
            best[near], least[near] = found[near], far[near]
        return best

    return run


def _foolbox(attack: Any) -> Callable[[Victim, int], Tensor]:
    def run(victim: Victim, _: int) -> Tensor:
        model = foolbox.PyTorchModel(victim.net, bounds=(0, 1), device="cpu")
        return torch.as_tensor(attack(model, victim.images, victim.labels, epsilons=None)[0])

    return run


def ours(client: Client, victim: Victim, case: Case, seed: int) -> Tensor:
    """Iguana's pictures [n, C, H, W]."""
    answer = client.attack(
        (victim.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(),
        case.attack.partition(" ")[0],
        model=victim.name,
        label=victim.labels.tolist(),
        seed=seed,
        grid="float",
        timeout_s=CALL_S,
        **case.ours,
    )
    return torch.from_numpy(np.stack([result.image for result in answer])).permute(0, 3, 1, 2)


def fooled(victim: Victim, images: Tensor) -> Tensor:
    """[n] bool: pictures in which another class leads, but for TIE, as the plain network sees them.

    A black one is none: it is what foolbox's Carlini and Wagner answers where it has found nothing.
    """
    with torch.inference_mode():
        logits = victim.net(images)
    own = logits.gather(1, victim.labels[:, None])
    others = logits.scatter(1, victim.labels[:, None], -torch.inf).amax(1, keepdim=True)
    leads: Tensor = (others - own > -TIE)[:, 0]
    return leads & images.flatten(1).any(1)


def distance(images: Tensor, clean: Tensor, norm: Norm) -> Tensor:
    """[n] norms of the changes."""
    change = (images - clean).flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.norm(dim=1)


def duel(client: Client, victim: Victim, case: Case, seeds: int) -> dict[str, float]:
    """Let both sides do it with every seed; returns the figures. Raises AssertionError for pictures out of bounds."""
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    norms: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(seeds if case.random else 1):
        made = {"ours": ours(client, victim, case, seed), "theirs": case.theirs(victim, seed).detach()}
        hits = {side: fooled(victim, images) for side, images in made.items()}
        both = hits["ours"] & hits["theirs"]
        for side, images in made.items():
            size = distance(images, victim.images, case.norm)
            assert images.shape == victim.images.shape
            assert images.amin() >= 0
            assert images.amax() <= 1
            if case.epsilon is not None:
                assert size.max() <= case.epsilon * (1 + 1e-4), (case.attack, side, float(size.max()))
            rates[side].append(float(hits[side].float().mean()))
            norms[side].append(float(size[both].mean()) if both.any() else float("nan"))
    figures = {f"{side} fooled": sum(found) / len(found) for side, found in rates.items()}
    if case.epsilon is None:
        figures |= {f"{side} norm": sum(found) / len(found) for side, found in norms.items()}
    worse = figures["theirs fooled"] - figures["ours fooled"] > POINTS + 1e-9
    worse |= case.epsilon is None and figures["ours norm"] > (1 + SHARE) * figures["theirs norm"]
    return {**figures, "worse": float(worse)}


def photographs(victim: Victim) -> Victim:
    """The victim before the labelled ImageNet photographs of foolbox's package, those that it sees rightly."""
    folder = packaged.locate("foolbox", "data/imagenet_00_243.jpg").parent
    spec, bounds = catalog.load(victim.name).spec, limits(Config())
    files = sorted(folder.glob("imagenet_*.jpg"))
    images = torch.stack(
        [to_pixels(image_pb2.Image(encoded=path.read_bytes()), path.name, spec, bounds) for path in files]
    )
    labels = torch.tensor([int(re.sub(r".*_", "", path.stem)) for path in files])
    with torch.inference_mode():
        right = victim.net(images).argmax(1) == labels
    print(f"{victim.name}: {int(right.sum())} of {len(files)} photographs are seen rightly")
    return Victim(victim.name, victim.net, images[right], labels[right], victim.classes, victim.device)


def first(victim: Victim, n: int) -> Victim:
    """The victim before the first n of its pictures."""
    return Victim(
        victim.name, victim.net, victim.images[:n], victim.labels[:n], victim.classes, victim.device
    )


def run(model: str, words: Sequence[str], out: Path, *, quick: bool, resume: bool) -> list[dict[str, Any]]:
    """Run a model's cases; returns the rows. They are kept in a file unless they are a part of all alone."""
    victim = victims.load(model, torch.device("cpu"))
    victim = first(
        photographs(victim) if model.startswith("efficientnet") else victim, QUICK if quick else PICTURES
    )
    every = cases(BUDGETS[model], victim.images.shape[1], victim.classes)
    record, path = Record(f"strength-{model}"), out / f"strength-{model}.json"
    if resume and path.exists():
        record.rows = json.loads(path.read_text())["results"]
    known = [row["case"] for row in record.rows]
    chosen = [
        (case, names)
        for case, names in ((case, case.names(model, len(victim.images))) for case in every)
        if names not in known and any(f"{model}/{case.attack}".startswith(word) for word in words or [""])
    ]
    with serving(model, "cpu") as address, Client(address) as client:
        for case, names in chosen:
            record.add(names, duel(client, victim, case, BUDGETS[model].seeds))
            if resume or (len(chosen) == len(every) and not quick):
                record.write(out)
    return record.rows


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print all rows once more, and who is worse."""
    print(f"\n{'model':20}{'attack':10}{'epsilon':>10} {'norm':6}{'library':14}{'fooled, ours / theirs':>24}")
    for row in rows:
        case, figures = row["case"], row["figures"]
        text = f"{100 * figures['ours fooled']:.1f} / {100 * figures['theirs fooled']:.1f} %"
        if "ours norm" in figures:
            ratio = figures["ours norm"] / figures["theirs norm"] - 1
            text += (
                f"   norm {figures['ours norm']:.4g} / {figures['theirs norm']:.4g} ({100 * ratio:+.1f} %)"
            )
        flag = "   WORSE" if figures["worse"] else ""
        line = (
            f"{case['model']:20}{case['attack']:10}{case['epsilon']:>10} {case['norm']:6}{case['library']:14}"
        )
        print(f"{line}{text:>24}{flag}")
    print(flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL[/ATTACK]", help="these alone")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pictures: to see that it runs")
    parser.add_argument("--resume", action="store_true", help="keep what the file has, and add the others")
    add_output(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick and arguments.resume:
        parser.error("--resume: want it without --quick, got both")
    models = [
        name for name in BUDGETS if any(word.split("/")[0] in ("", name) for word in arguments.only or [""])
    ]
    if not models:
        parser.error(f"--only: want some of {', '.join(BUDGETS)}, got {arguments.only}")
    rows = [
        row
        for model in models
        for row in run(model, arguments.only, arguments.out, quick=arguments.quick, resume=arguments.resume)
    ]
    table(rows)
    sys.exit(any(row["figures"]["worse"] for row in rows))


if __name__ == "__main__":
    main()
