"""How many forged pictures the detectors catch, and how many clean ones they take for forged.

    python -m benchmarks.detect fashion-mnist-cnn --data /usr/share/datasets/fashion-mnist
    python -m benchmarks.detect efficientnet-lite0 --data FOLDER    # of photographs

Fashion-MNIST: pictures are of the second half of the test set, the detectors as shipped, which were calibrated
on the first half. Photographs: each is held to all the others; so few cannot vouch
for 1 %. Forged pictures lie on the 8-bit grid, as
they are delivered; only those count that fool the model. "joint" is all detectors together. "past" is the share
of all pictures that fool the model and are not flagged at 5 %. Attacks by the name of "adaptive" know of the
detectors and are led past all of them together (AttackRequest.evade); the others do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.record import RESULTS, Record
from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.calibrate import CALIBRATED_ON, IDX, KINDS, picture
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.catalog import available
from iguana_server.detectors.net import built_in
from iguana_server.detectors.panel import Panel
from iguana_server.detectors.watch import Watch
from iguana_server.engine import AttackJob, Engine, Forged, Plan
from iguana_server.models import catalog
from iguana_server.models.base import Model
from iguana_server.training import fashion_mnist
from iguana_server.training.detector import calibrate

DOCS = Path(__file__).parent.parent / "docs"
RATES = (0.01, 0.05)
PICTURES, ADAPTIVE = 500, 200  # of Fashion-MNIST
QUERIES = 300  # of Square
JOINT = "joint"


@dataclass(frozen=True)
class Case:
    """An attack: its parameters, and whether it aims at a class (the next after the clean one)."""

    title: str
    attack: str
    parameters: dict[str, float]
    targeted: bool = False
    adaptive: bool = False


def cases(levels: Sequence[float], steps: int, adaptive_steps: int) -> list[Case]:
    """The attacks at radii in [0, 1], and C&W, which has none."""
    made = [Case("cw", "cw", {"steps": 100, "binary_steps": 3})]
    for level in levels:
        name = f"{level * 255:.3g}/255"
        made += [
            Case(f"noise {name}", "noise", {"epsilon": level}),
            Case(f"fgsm {name}", "fgsm", {"epsilon": level}),
            Case(f"pgd {name}", "pgd", {"epsilon": level, "alpha": 2.5 * level / steps, "steps": steps}),
            Case(
                f"pgd to a class {name}",
                "pgd",
                {"epsilon": level, "alpha": 2.5 * level / steps, "steps": steps},
                True,
            ),
            Case(f"square {name}", "square", {"epsilon": level, "queries": QUERIES}),
            Case(
                f"adaptive pgd {name}",
                "pgd",
                {"epsilon": level, "alpha": level / 10, "steps": adaptive_steps, "suspicion_weight": 1},
                adaptive=True,
            ),
        ]
    return made


async def forge(
    engine: Engine, model: Model, images: Tensor, clean: Tensor, case: Case, watch: Watch
) -> list[Forged]:
    """Attack pictures whose clean predictions are `clean` [n]."""
    attack, classes = ATTACKS[case.attack], len(model.spec.classes)
    columns = {
        name: torch.full((len(images),), value, dtype=attack.columns()[name].dtype)
        for name, value in case.parameters.items()
    }
    if case.adaptive:
        columns["allowed"] = torch.full((len(images),), watch.limit(RATES[-1]))
    else:
        columns["stop"] = torch.full((len(images),), NEVER)
    columns["label"] = (clean + 1) % classes if case.targeted else clean
    columns["targeted"] = torch.full((len(images),), case.targeted)
    plan = Plan(attack=attack, columns=columns, watch=watch if case.adaptive else None)
    job = AttackJob(images, plan, method="benchmark", model=model.spec.name, caller="benchmark", strict=False)
    return [one for one in await engine.run(job) if isinstance(one, Forged)]


def auc(clean: NDArray[np.float64], forged: NDArray[np.float64]) -> float:
    """The chance that a forged picture has a higher score than a clean one, equals by half."""
    wins = (forged[:, None] > clean).mean() + (forged[:, None] == clean).mean() / 2
    return float(wins)


def possible(held_to: Sequence[Calibration]) -> list[float]:
    """The false-positive rates that the calibrations can vouch for."""
    return [rate for rate in RATES if all(rate >= calibration.least_rate for calibration in held_to)]


def measure(
    scores: Mapping[str, Tensor], held_to: Sequence[Calibration]
) -> tuple[dict[str, NDArray[np.float64]], dict[tuple[str, float], NDArray[np.bool_]]]:
    """Suspicion [n] and flags [n] by detector and rate, of pictures that are each held to a calibration."""
    suspicion: dict[str, list[float]] = {name: [] for name in (*scores, JOINT)}
    rates = possible(held_to)
    flags: dict[tuple[str, float], list[bool]] = {(name, rate): [] for name in suspicion for rate in rates}
    for i, calibration in enumerate(held_to):
        own = {name: float(column[i]) for name, column in scores.items()}
        p = calibration.joint(own)
        suspicion[JOINT].append(-p)
        for name, score in own.items():
            suspicion[name].append(score)
        for rate in rates:
            most = calibration.allowed(rate) / (calibration.pictures + 1)
            flags[JOINT, rate].append(p <= most)
            for name, score in own.items():
                flags[name, rate].append(score > calibration.threshold(name, rate))
    return (
        {name: np.array(values) for name, values in suspicion.items()},
        {key: np.array(values) for key, values in flags.items()},
    )


def photographs(model: Model, folder: Path) -> tuple[Tensor, Panel, list[Calibration], Calibration]:
    """The photographs in a folder, for each a calibration on the others, and one on all."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
    images = torch.stack([picture(path, model.spec) for path in files])
    whole = calibrate(model, images, data=f"{len(files)} photographs", rate=0.05)
    others = [
        replace(whole, scores={name: np.delete(column, i) for name, column in whole.scores.items()})
        for i in range(len(files))
    ]
    panel = Panel([available()[name](model.spec, {}) for name in whole.scores])
    return images, panel, others, whole


def clothes(model: Model, folder: Path) -> tuple[Tensor, Panel, list[Calibration], Calibration]:
    """Test pictures that the shipped calibration has not seen."""
    net = built_in(model)
    assert net is not None, f"{model.spec.name}: want a calibration that is shipped, got none"
    images, _ = fashion_mnist.load(folder, "t10k")
    images = images[CALIBRATED_ON : CALIBRATED_ON + PICTURES] / 255
    return images, Panel(list(net.detectors.values())), [net.calibration] * len(images), net.calibration


def plot(rates: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """The share flagged at 5 % by attack and detector: a group of bars for each attack."""
    figure = Figure(figsize=(8, 0.45 * len(rates) + 1.5), layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(rates.values())))
    for k, name in enumerate(names):
        places = [i + 0.8 * (k + 0.5) / len(names) - 0.4 for i in range(len(rates))]
        axes.barh(places, [group[name] for group in rates.values()], 0.8 / len(names), label=name)
    axes.axvline(0.05, color="grey", linestyle="--")
    axes.set(
        yticks=range(len(rates)),
        yticklabels=list(rates),
        xlim=(0, 1),
        title=title,
        xlabel="share flagged at 5 %",
    )
    axes.invert_yaxis()
    figure.legend(fontsize="small", loc="outside right upper")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=DOCS)
    given = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = catalog.load(given.model)
    small = (given.data / IDX).is_file()
    images, panel, held_to, known = (clothes if small else photographs)(model, given.data)
    watch = Watch(model, panel, known)
    with torch.inference_mode():
        clean = torch.cat([model(x).argmax(1) for x in torch.split(images, model.spec.max_batch)])
    record = Record(f"detect-{model.spec.name}")
    rates = possible(held_to)
    suspicion, flags = measure(panel.examine(model, images), held_to)
    shown: dict[str, dict[str, float]] = {"clean": {}}
    for name in suspicion:
        alarms = {f"flagged at {rate:g}": float(flags[name, rate].mean()) for rate in rates}
        record.add({"attack": "clean", "detector": name}, {"pictures": len(images), **alarms})
        shown["clean"][name] = alarms["flagged at 0.05"]
    with Engine({model.spec.name: model}, max_cost=1 << 40) as engine, asyncio.Runner() as runner:
        for case in cases((0.02, 0.05, 0.1), 20, 100) if small else cases((2 / 255, 8 / 255), 10, 60):
            few = ADAPTIVE if case.adaptive else PICTURES
            forged = runner.get_loop().run_until_complete(
                forge(engine, model, images[:few], clean[:few], case, watch)
            )
            wrong = [
                int(one.after.argmax()) == (label + 1) % len(model.spec.classes)
                if case.targeted
                else int(one.after.argmax()) != label
                for one, label in zip(forged, clean.tolist(), strict=False)
            ]
            # Of noise, all: it is there to be told from an attack.
            counted = np.array([fools or case.attack == "noise" for fools in wrong])
            if not counted.any():
                continue
            scores = panel.examine(model, torch.stack([one.image for one in forged]))
            found, caught = measure(scores, held_to[:few])
            for name in found:
                share = {f"flagged at {r:g}": float(caught[name, r][counted].mean()) for r in rates}
                record.add(
                    {"attack": case.title, "detector": name},
                    {
                        "pictures": int(counted.sum()),
                        "AUC": auc(suspicion[name], found[name][counted]),
                        **share,
                        "past": float((~caught[name, RATES[-1]] & np.array(wrong)).mean()),
                    },
                )
                shown.setdefault(case.title, {})[name] = share["flagged at 0.05"]
    print(record.write(given.out))
    plot(shown, model.spec.name, given.plot / f"detect-{model.spec.name}.png")


if __name__ == "__main__":
    main()
