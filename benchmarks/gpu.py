"""PGD on a GPU: Iguana beside torchattacks and foolbox, and beside a bare loop, at several batch sizes.

    python -m benchmarks.gpu [--device cuda] [--steps 40] [--batches 1 16 256] [--rounds 3] [--quick]

PGD in the Linf ball of 8/255, all steps taken, by

    bare loop     a frozen, folded, channels_last network; forward, input-only backward, a plain sign step;
    Iguana        the engine in this process, FAST; pictures from host memory and back to it;
    torchattacks  and foolbox, as their users run them: the plain module, NCHW, its weights as loaded;

on EfficientNet-Lite0 and its photos, where fooled rows may also leave early, and on a ResNet-50 whose weights are
drawn (resnet50.py): of that one success means nothing and only time is compared. torch's own settings hold for all:
TF32 convolutions, no cudnn.benchmark. Every timed run ends when the device is done.

Two figures count. "peer / Iguana": wanted 3 at batch 16 and 1.5 at 256. "added a step", what Iguana's step takes
beyond the bare loop's, as a share of it: wanted 0.05 at most. A model and batch get --case-s seconds: rounds that do not
fit are left out, one is always run. With --device cpu the path is the same; its figures are not kept.
"""

# ruff: noqa: E402 - the allocator is set up before torch is imported, as the server does
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

from iguana_server import process

process.prepare()

import torch
from torch import Tensor

from benchmarks import resnet50
from benchmarks.peers import foolbox, iguana, limit, torchattacks
from benchmarks.peers import victim as victims
from benchmarks.peers.proxy import judge
from benchmarks.peers.task import Task
from benchmarks.peers.victim import Normalised, Victim
from benchmarks.record import RESULTS, Record, add_output
from benchmarks.rounds import alternate, ratio
from iguana_server.engine import Forged
from iguana_server.errors import ModelRefused
from iguana_server.models import catalog
from iguana_server.models.base import Model

OUT = Path(__file__).parent.parent / "out"
EPSILON = 8 / 255
BARE, OURS = "bare loop", "Iguana"
PEERS = ("torchattacks", "foolbox")
WANTED = {16: 3.0, 256: 1.5}  # times as fast as a peer, by batch
ADDED = 0.05  # of a bare step, at most
WARM_STEPS = 4
AGREE = 1 / 256  # of the samples

Made = Tensor | list[Forged]


def lite0(device: torch.device) -> tuple[Victim, Model]:
    """EfficientNet-Lite0 with its weights, and photos."""
    return victims.load("efficientnet-lite0", device), catalog.load("efficientnet-lite0", device)


def resnet(device: torch.device) -> tuple[Victim, Model]:
    """ResNet-50 with drawn weights, and noise."""
    network = resnet50.net()
    model = resnet50.load(deepcopy(network), device)
    net = Normalised(network, resnet50.MEAN, resnet50.STD, 3).eval().to(device)
    shape = (victims.PHOTO_SAMPLES, *model.spec.shape)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    images = (pixels / 255).to(device)
    with torch.inference_mode():
        labels = net(images).argmax(1)
    return Victim(model.spec.name, net, images, labels.clone(), len(model.spec.classes), device), model


MODELS = {"efficientnet-lite0": lite0, resnet50.NAME: resnet}


class Duel:
    """One model at one batch size."""

    def __init__(self, victim: Victim, model: Model, batch: int, stack: ExitStack) -> None:
        """Repeat the victim's images up to the batch; contenders end with the stack."""
        rows = torch.arange(batch, device=victim.device) % len(victim.images)
        self.victim = replace(victim, images=victim.images[rows], labels=victim.labels[rows])
        self.made: dict[str, Made] = {}
        self._runs: dict[str, Callable[[Task], Made]] = {
            BARE: stack.enter_context(limit.contender(self.victim)),
            OURS: stack.enter_context(iguana.attacking(self.victim, model)),
            "torchattacks": stack.enter_context(torchattacks.contender(self.victim)),
            "foolbox": stack.enter_context(foolbox.contender(self.victim)),
        }

    def run(self, who: str, task: Task) -> None:
        """Have it done, to its end on the device; "WHO, early" is WHO."""
        self.made[who] = self._runs[who.partition(",")[0]](task)
        if self.victim.device.type == "cuda":
            torch.cuda.synchronize()

    def fooled(self, who: str, task: Task) -> int:
        """Images that are fooled; AssertionError where they lie outside the box or the ball."""
        made = self.made[who]
        return judge(self.victim, made if isinstance(made, Tensor) else iguana.stacked(made), task).fooled


def compare(duel: Duel, task: Task, rounds: int, case_s: float, record: Record) -> list[str]:
    """Time one task by all, and note it; returns what does not agree."""
    victim, batch = duel.victim, len(duel.victim.images)
    real = victim.name != resnet50.NAME  # what it sees means something
    tasks = dict.fromkeys((BARE, OURS, *PEERS), task)
    if real:
        tasks |= dict.fromkeys((f"{BARE}, early", f"{OURS}, early"), replace(task, early=True))
    warm = {who: replace(one, steps=min(WARM_STEPS, one.steps)) for who, one in tasks.items()}
    for _ in range(2):  # the first allocates and picks algorithms
        began = time.perf_counter()
        for who, short in warm.items():
            duel.run(who, short)
    round_s = (time.perf_counter() - began) * task.steps / min(WARM_STEPS, task.steps)
    rounds = max(1, min(rounds, int(case_s / round_s)))
    times = alternate({who: partial(duel.run, who, one) for who, one in tasks.items()}, rounds, warm_up=0)
    case: dict[str, str | int] = {"model": victim.name, "batch": batch, "attack": f"pgd-{task.steps}"}
    fooled = {who: duel.fooled(who, one) for who, one in tasks.items()}
    for who, seconds in times.items():
        middle = statistics.median(seconds)
        figures = {"s": middle, "low s": min(seconds), "high s": max(seconds), "rounds": rounds}
        figures["ms a step"] = 1e3 * middle / task.steps
        record.add(case | {"who": who}, figures | ({"success": fooled[who] / batch} if real else {}))
    headline(record, case, times)
    if real and max(fooled.values()) - min(fooled.values()) > AGREE * batch:
        return [f"{victim.name}, batch {batch}: want equal success, got {fooled}"]
    return []


def headline(record: Record, case: dict[str, str | int], times: Mapping[str, list[float]]) -> None:
    """Note the figures that count, with what is wanted of them."""
    wanted = WANTED.get(int(case["batch"]))
    for who in times:
        if who in PEERS:
            for ours in (one for one in times if one.startswith(OURS)):
                middle, low, high = ratio(times[who], times[ours])
                figures = {"ratio": middle, "low": low, "high": high}
                figures |= {"wanted": wanted} if wanted and ours == OURS else {}
                record.add(case | {"headline": f"{who} / {ours}"}, figures)
    middle, low, high = (value - 1 for value in ratio(times[OURS], times[BARE]))
    figures = {"share": middle, "low": low, "high": high, "wanted at most": ADDED}
    record.add(case | {"headline": "added a step"}, figures)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=40, help="of PGD (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 16, 256), help="rows (1 16 256)")
    parser.add_argument("--rounds", type=int, default=3, help="at most (%(default)s)")
    parser.add_argument("--case-s", type=float, default=30, help="of a model and batch (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 steps, 1 round: to see that it runs")
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: want cpu, or cuda on a machine with a GPU that this torch sees, got cuda")
    if arguments.quick:
        arguments.steps, arguments.rounds = 2, 1
    if arguments.out == RESULTS and (arguments.quick or arguments.device == "cpu"):
        arguments.out = OUT
    task = Task("pgd", EPSILON, arguments.steps, strict=False)
    record, faults = Record("gpu"), []
    for name in arguments.models:
        try:
            victim, model = MODELS[name](torch.device(arguments.device))
        except ModelRefused as refusal:  # the other model is still worth its time
            faults.append(str(refusal))
            continue
        for batch in arguments.batches:
            with ExitStack() as stack:
                duel = Duel(victim, model, batch, stack)
                faults += compare(duel, task, arguments.rounds, arguments.case_s, record)
    record.write(arguments.out)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
